// Foundry3D at the edge: everything around the network, in one header of C++17.
//
// Reads clouds (ply, xyz), prepares them as in the model's training, samples centers, finds
// neighbours, and reads what an exported file records about itself. Indices are those of
// foundry3d.geometry, ties included, if the compiler rounds every product: use -ffp-contract=off
// (gcc, clang) or /fp:precise (Visual C++), and never -ffast-math.
//
// Shapes: N points of a cloud, c centers, k points of a group. Arrays are row-major.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#ifdef __FAST_MATH__
#error "fast math changes which points are chosen; compile without it"
#endif

namespace foundry3d {

// A file, an option or a cloud cannot be used; what() is one sentence for the user.
struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

using Point = std::array<double, 3>;
using Cloud = std::vector<Point>;

// ---- Sampling and neighbours ----------------------------------------------------------------

inline float squared_distance(const float* a, const float* b) {
  const float dx = a[0] - b[0], dy = a[1] - b[1], dz = a[2] - b[2];
  return dx * dx + dy * dy + dz * dz;
}

// Indices (count) into points (N, 3): from index 0, each time the farthest from all before; ties
// go to the lowest index. count is 1 to N.
inline std::vector<std::int64_t> farthest_point_sample(const std::vector<float>& points,
                                                       std::size_t count) {
  const std::size_t size = points.size() / 3;
  if (count < 1 || count > size) throw InputError("cannot sample more points than there are");
  std::vector<std::int64_t> chosen(count, 0);
  std::vector<float> nearest(size, std::numeric_limits<float>::infinity());
  for (std::size_t i = 1; i < count; ++i) {
    const float* last = &points[3 * static_cast<std::size_t>(chosen[i - 1])];
    std::size_t best = 0;
    float most = -1;
    for (std::size_t j = 0; j < size; ++j) {
      nearest[j] = std::min(nearest[j], squared_distance(&points[3 * j], last));
      if (nearest[j] > most) most = nearest[j], best = j;
    }
    chosen[i] = static_cast<std::int64_t>(best);
  }
  return chosen;
}

// Indices (M, k) into points (N, 3) of the nearest points of each query (M, 3), nearest first; ties
// go to the lowest index. k is 1 to N.
inline std::vector<std::int64_t> nearest_neighbors(const std::vector<float>& queries,
                                                   const std::vector<float>& points,
                                                   std::size_t k) {
  const std::size_t size = points.size() / 3, count = queries.size() / 3;
  if (k < 1 || k > size) throw InputError("cannot take more neighbours than there are points");
  std::vector<std::pair<float, std::int64_t>> order(size);
  std::vector<std::int64_t> found;
  found.reserve(count * k);
  for (std::size_t q = 0; q < count; ++q) {
    for (std::size_t j = 0; j < size; ++j)
      order[j] = {squared_distance(&queries[3 * q], &points[3 * j]), static_cast<std::int64_t>(j)};
    const auto end = order.begin() + static_cast<std::ptrdiff_t>(k);
    if (k < size) std::nth_element(order.begin(), end - 1, order.end());
    std::sort(order.begin(), end);
    for (auto it = order.begin(); it != end; ++it) found.push_back(it->second);
  }
  return found;
}

struct Groups {
  std::vector<float> centers;        // (c, 3)
  std::vector<float> neighborhoods;  // (c, k, 3), nearest first, relative to the center
};

// Centers of points (N, 3) and their nearest points, divided by the radius where there is one.
inline Groups group_points(const std::vector<float>& points, std::size_t groups,
                           std::size_t group_size, std::optional<float> radius = {}) {
  Groups found;
  for (const std::int64_t i : farthest_point_sample(points, groups))
    found.centers.insert(found.centers.end(), &points[3 * i], &points[3 * i] + 3);
  const auto index = nearest_neighbors(found.centers, points, group_size);
  found.neighborhoods.reserve(3 * index.size());
  for (std::size_t i = 0; i < index.size(); ++i)
    for (std::size_t axis = 0; axis < 3; ++axis) {
      const float center = found.centers[3 * (i / group_size) + axis];
      const float own = points[3 * static_cast<std::size_t>(index[i]) + axis] - center;
      found.neighborhoods.push_back(radius ? own / *radius : own);
    }
  return found;
}

// ---- Preparation ----------------------------------------------------------------------------

struct Preparation {
  bool normalise = true;      // mean to the origin, the farthest point to a distance of 1
  char up = 0;                // axis that points up in the clouds of the training; 0 = unknown
  std::size_t points = 0;     // larger clouds are reduced to a random subset; 0 = never
};

struct Prepared {
  std::vector<float> points;         // (N, 3)
  Point shift{0, 0, 0};              // original = points * scale + shift, axes rolled back
  double scale = 1;
  int turn = 0;
  std::vector<std::size_t> index;    // which points of the cloud were taken; empty = all

  // A center in the coordinates that the cloud came in.
  Point original(const float* center) const {
    Point out;
    for (int axis = 0; axis < 3; ++axis)
      out[(axis - turn + 3) % 3] = center[axis] * scale + shift[axis];
    return out;
  }
};

// Refuses clouds that no model can read: too few points, coordinates that are not finite, or all
// points equal.
inline void check(const Cloud& cloud, std::size_t least) {
  bool differ = false;
  for (const Point& point : cloud) {
    for (const double value : point)
      if (!std::isfinite(value))
        throw InputError("expected finite coordinates, got NaN or infinite ones; remove them");
    differ = differ || point != cloud[0];
  }
  if (cloud.size() < least)
    throw InputError("expected at least " + std::to_string(least) +
                     " points, the larger of the model's number of groups and its group size, got " +
                     std::to_string(cloud.size()) + "; use a denser cloud");
  if (!differ) throw InputError("expected points that differ, got equal ones");
}

// A cloud as a model expects it. `up` is the axis that points up in the cloud; 0 = the model's. The
// random subset of large clouds depends on the seed, and is not the one that Python draws.
inline Prepared prepare(const Cloud& cloud, const Preparation& how, std::size_t least = 1,
                        char up = 0, std::uint64_t seed = 0) {
  check(cloud, least);
  Prepared found;
  if (up) {
    if (up < 'x' || up > 'z') throw InputError("up must be x, y or z");
    if (!how.up) throw InputError("this model does not record which axis points up");
    found.turn = ((how.up - up) % 3 + 3) % 3;
  }
  std::vector<std::size_t> rows(cloud.size());
  std::iota(rows.begin(), rows.end(), std::size_t{0});
  if (how.points && rows.size() > how.points) {
    std::mt19937_64 draw(seed);
    for (std::size_t i = 0; i < how.points; ++i)
      std::swap(rows[i], rows[i + draw() % (rows.size() - i)]);
    rows.resize(how.points);
    found.index = rows;
  }
  std::vector<Point> exact(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (int axis = 0; axis < 3; ++axis)
      exact[i][(axis + found.turn) % 3] = cloud[rows[i]][axis];
  if (how.normalise) {
    for (int axis = 0; axis < 3; ++axis) {
      for (const Point& p : exact) found.shift[axis] += p[axis];
      found.shift[axis] /= static_cast<double>(exact.size());
      for (Point& p : exact) p[axis] -= found.shift[axis];
    }
    double most = 0;
    for (const Point& p : exact) most = std::max(most, p[0] * p[0] + p[1] * p[1] + p[2] * p[2]);
    found.scale = std::sqrt(most);
    if (!(found.scale > 0 && std::isfinite(found.scale)))
      throw InputError("expected a cloud of finite size above 0; use other points or units");
  }
  found.points.reserve(3 * exact.size());
  for (const Point& p : exact)
    for (const double value : p) {
      if (std::abs(value) > 5e18 * found.scale)
        throw InputError("expected coordinates within 5e18, got larger ones; scale the cloud");
      found.points.push_back(static_cast<float>(value / found.scale));
    }
  return found;
}

// ---- Files of points --------------------------------------------------------------------------

inline std::string read_bytes(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw InputError(path + ": cannot be read; check the path");
  std::ostringstream all;
  all << stream.rdbuf();
  return all.str();
}

namespace detail {

struct Property {
  std::string name;
  char kind;        // c C s S i I f d
  char count_kind;  // of a list's length; 0 for a single number
};

struct Element {
  std::string name;
  std::size_t count;
  std::vector<Property> properties;
};

inline InputError damaged(const std::string& reason) {
  return InputError("not a whole ply file, " + reason + "; copy or export it again");
}

inline char kind_of(const std::string& name) {
  static const std::map<std::string, char> kinds{
      {"char", 'c'},  {"int8", 'c'},  {"uchar", 'C'},  {"uint8", 'C'}, {"short", 's'},
      {"int16", 's'}, {"ushort", 'S'}, {"uint16", 'S'}, {"int", 'i'},   {"int32", 'i'},
      {"uint", 'I'},  {"uint32", 'I'}, {"float", 'f'},  {"float32", 'f'}, {"double", 'd'},
      {"float64", 'd'}};
  const auto found = kinds.find(name);
  if (found == kinds.end()) throw damaged("its header has the type " + name);
  return found->second;
}

// Numbers of a ply body, one after the other, from text or bytes.
class Body {
 public:
  Body(const std::string& blob, std::size_t at, bool text, bool big)
      : blob_(blob), at_(at), text_(text), big_(big) {}

  double next(char kind) {
    if (text_) return word();
    switch (kind) {
      case 'c': return bytes<std::int8_t>();
      case 'C': return bytes<std::uint8_t>();
      case 's': return bytes<std::int16_t>();
      case 'S': return bytes<std::uint16_t>();
      case 'i': return bytes<std::int32_t>();
      case 'I': return bytes<std::uint32_t>();
      case 'f': return bytes<float>();
      default: return bytes<double>();
    }
  }

 private:
  template <class T>
  double bytes() {
    char raw[sizeof(T)];
    if (blob_.size() - at_ < sizeof(T)) throw damaged("it holds less than it declares");
    std::memcpy(raw, &blob_[at_], sizeof(T));
    const std::uint16_t probe = 1;
    const bool machine_big = *reinterpret_cast<const char*>(&probe) == 0;
    if (big_ != machine_big) std::reverse(raw, raw + sizeof(T));
    at_ += sizeof(T);
    T value;
    std::memcpy(&value, raw, sizeof(T));
    return static_cast<double>(value);
  }

  double word() {
    const char* start = blob_.c_str() + at_;
    char* end = nullptr;
    const double value = std::strtod(start, &end);
    if (end == start) throw damaged("it holds fewer numbers than it declares");
    at_ += static_cast<std::size_t>(end - start);
    return value;
  }

  const std::string& blob_;
  std::size_t at_;
  bool text_, big_;
};

// Elements of a ply header, and a body that stands behind it.
inline std::pair<std::vector<Element>, Body> ply_header(const std::string& blob) {
  const std::size_t end = blob.find("end_header");
  const std::size_t stop = end == std::string::npos ? end : blob.find_first_of("\r\n", end);
  if (blob.compare(0, 3, "ply") != 0 || stop == std::string::npos)
    throw damaged("it has no header from 'ply' to 'end_header'");
  std::string header = blob.substr(0, end), line, format;
  std::replace(header.begin(), header.end(), '\r', '\n');
  std::istringstream lines(header);
  std::vector<Element> elements;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    std::string first, a, b, c, d;
    words >> first >> a >> b >> c >> d;
    if (first == "format") format = a;
    if (first == "element") {
      if (b.empty() || b.size() > 18 || b.find_first_not_of("0123456789") != std::string::npos)
        throw damaged("its header declares no number of '" + a + "'");
      elements.push_back({a, static_cast<std::size_t>(std::stoull(b)), {}});
    }
    if (first == "property") {
      if (elements.empty()) throw damaged("its header has a property of no element");
      const bool list = a == "list";
      elements.back().properties.push_back(
          {list ? d : b, kind_of(list ? c : a), list ? kind_of(b) : '\0'});
    }
  }
  const bool text = format == "ascii", big = format == "binary_big_endian";
  if (!text && !big && format != "binary_little_endian")
    throw damaged("its format is none of ascii, binary_little_endian, binary_big_endian");
  const bool both = blob[stop] == '\r' && blob[stop + 1] == '\n';
  return {elements, Body(blob, stop + (both ? 2 : 1), text, big)};
}

}  // namespace detail

// The vertices of a ply file, as text or in either byte order.
inline Cloud parse_ply(const std::string& blob) {
  auto [elements, body] = detail::ply_header(blob);
  for (const detail::Element& element : elements) {
    const bool vertex = element.name == "vertex";
    Cloud cloud;
    if (element.properties.empty()) continue;
    std::array<int, 3> seen{0, 0, 0};
    for (std::size_t row = 0; row < element.count; ++row) {
      Point point{0, 0, 0};
      for (const detail::Property& property : element.properties) {
        double left = property.count_kind ? body.next(property.count_kind) : 1;
        for (; left >= 1; left -= 1) {
          const double value = body.next(property.kind);
          if (property.count_kind || property.name.size() != 1) continue;
          const int axis = property.name[0] - 'x';
          if (axis >= 0 && axis < 3) point[axis] = value, seen[axis] = 1;
        }
      }
      if (vertex) cloud.push_back(point);
    }
    if (!vertex) continue;
    if (element.count && seen != std::array<int, 3>{1, 1, 1})
      throw detail::damaged("its vertices have no x, y and z");
    return cloud;
  }
  throw detail::damaged("its header declares no element 'vertex'");
}

// The first three columns of a text table, separated by white space, commas or semicolons; what
// stands before the first row, and comments, are left out.
inline Cloud parse_xyz(const std::string& blob) {
  std::string text = blob, line;
  std::replace_if(text.begin(), text.end(), [](char c) { return c == ',' || c == ';'; }, ' ');
  std::replace(text.begin(), text.end(), '\r', '\n');
  std::istringstream lines(text);
  Cloud cloud;
  while (std::getline(lines, line)) {
    const std::size_t start = line.find_first_not_of(" \t");
    if (start == std::string::npos || line[start] == '#' || line.compare(start, 2, "//") == 0)
      continue;
    Point point;
    const char* at = line.c_str();
    int read = 0;
    for (char* end = nullptr; read < 3; ++read, at = end) {
      point[read] = std::strtod(at, &end);
      if (end == at || (*end && *end != ' ' && *end != '\t')) break;
    }
    if (read == 3) cloud.push_back(point);
    else if (!cloud.empty()) throw InputError("expected rows of at least three numbers: " + line);
  }
  if (cloud.empty()) throw InputError("expected rows of at least three numbers, got none");
  return cloud;
}

inline bool ends_in(const std::string& path, const std::string& suffix) {
  return path.size() >= suffix.size() &&
         path.compare(path.size() - suffix.size(), suffix.size(), suffix) == 0;
}

// The points of a .ply, .xyz or .txt file.
inline Cloud read_cloud(const std::string& path) {
  const bool table = ends_in(path, ".xyz") || ends_in(path, ".txt");
  if (!table && !ends_in(path, ".ply"))
    throw InputError(path + ": expected a file that ends in .ply, .xyz or .txt");
  const std::string blob = read_bytes(path);
  try {
    return table ? parse_xyz(blob) : parse_ply(blob);
  } catch (const InputError& error) {
    throw InputError(path + ": " + error.what());
  }
}

// ---- What an exported file records about itself -------------------------------------------------

namespace detail {

// JSON as far as the record needs it; every value keeps its parts.
struct Json {
  enum Kind { null, boolean, number, text, list, object } kind = null;
  double value = 0;  // of numbers, and 1 for true
  std::string word;
  std::vector<Json> items;
  std::map<std::string, Json> members;

  const Json& operator[](const std::string& name) const {
    static const Json nothing;
    const auto found = members.find(name);
    return found == members.end() ? nothing : found->second;
  }
  std::vector<std::string> words() const {
    std::vector<std::string> out;
    for (const Json& item : items) out.push_back(item.word);
    return out;
  }
};

class JsonReader {
 public:
  explicit JsonReader(const std::string& text) : text_(text) {}

  Json read(int depth = 0) {
    if (depth > 64) throw InputError("the record of the export is nested too deeply");
    Json out;
    switch (peek()) {
      case '{':
        out.kind = Json::object;
        for (bool more = open('}'); more; more = another('}')) {
          const std::string name = quoted();
          expect(':');
          out.members[name] = read(depth + 1);
        }
        break;
      case '[':
        out.kind = Json::list;
        for (bool more = open(']'); more; more = another(']')) out.items.push_back(read(depth + 1));
        break;
      case '"': out.kind = Json::text, out.word = quoted(); break;
      case 't': literal("true"), out.kind = Json::boolean, out.value = 1; break;
      case 'f': literal("false"), out.kind = Json::boolean; break;
      case 'n': literal("null"); break;
      default: out.kind = Json::number, out.value = digits();
    }
    return out;
  }

 private:
  [[noreturn]] static void fail() {
    throw InputError("the record of the export is damaged; export the model again");
  }
  char peek() {
    at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size());
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  void expect(char wanted) {
    if (peek() != wanted) fail();
    ++at_;
  }
  bool open(char close) {
    ++at_;
    if (peek() != close) return true;
    ++at_;
    return false;
  }
  bool another(char close) {
    const char found = peek();
    if (found != ',' && found != close) fail();
    ++at_;
    return found == ',';
  }
  void literal(const std::string& word) {
    if (text_.compare(at_, word.size(), word) != 0) fail();
    at_ += word.size();
  }
  double digits() {
    const char* start = text_.c_str() + at_;
    char* end = nullptr;
    const double value = std::strtod(start, &end);
    if (end == start) fail();
    at_ += static_cast<std::size_t>(end - start);
    return value;
  }
  unsigned hexadecimal() {
    if (text_.size() - at_ < 4) fail();
    const unsigned value = static_cast<unsigned>(std::strtoul(text_.substr(at_, 4).c_str(), nullptr, 16));
    at_ += 4;
    return value;
  }
  std::string quoted() {
    expect('"');
    std::string out;
    while (at_ < text_.size() && text_[at_] != '"') {
      char c = text_[at_++];
      if (c != '\\') { out += c; continue; }
      if (at_ >= text_.size()) fail();
      c = text_[at_++];
      const std::string from = "bfnrt", to = "\b\f\n\r\t";
      if (c == 'u') append(out, character());
      else out += from.find(c) == std::string::npos ? c : to[from.find(c)];
    }
    expect('"');
    return out;
  }
  unsigned character() {  // of one escape, or of the two that stand for one above 0xffff
    const unsigned first = hexadecimal();
    if (first < 0xd800 || first > 0xdbff || text_.compare(at_, 2, "\\u") != 0) return first;
    at_ += 2;
    return 0x10000 + ((first - 0xd800) << 10) + (hexadecimal() - 0xdc00);
  }
  static void append(std::string& out, unsigned code) {  // as UTF-8
    const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (code >> shift & 0x3f)); };
    if (code < 0x80) out += static_cast<char>(code);
    else if (code < 0x800) out += static_cast<char>(0xc0 | code >> 6), tail(0);
    else if (code < 0x10000) out += static_cast<char>(0xe0 | code >> 12), tail(6), tail(0);
    else out += static_cast<char>(0xf0 | code >> 18), tail(12), tail(6), tail(0);
  }

  const std::string& text_;
  std::size_t at_ = 0;
};

inline std::uint64_t varint(const std::string& blob, std::size_t& at, std::size_t end) {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 64 && at < end; shift += 7) {
    const auto byte = static_cast<unsigned char>(blob[at++]);
    value |= static_cast<std::uint64_t>(byte & 127) << shift;
    if (byte < 128) return value;
  }
  throw InputError("not an ONNX file; export the model with: foundry3d export MODEL --to onnx");
}

// Calls found(field, start, stop) for every field of bytes in a protocol buffer.
template <class Found>
void each_field(const std::string& blob, std::size_t at, std::size_t end, Found found) {
  while (at < end) {
    const std::uint64_t tag = varint(blob, at, end);
    const int wire = static_cast<int>(tag & 7);
    if (wire == 0) { varint(blob, at, end); continue; }
    const std::uint64_t size = wire == 1 ? 8 : wire == 5 ? 4 : wire == 2 ? varint(blob, at, end)
                                                                        : end - at + 1;
    if (size > end - at)
      throw InputError("not an ONNX file; export the model with: foundry3d export MODEL --to onnx");
    if (wire == 2) found(static_cast<int>(tag >> 3), at, at + size);
    at += size;
  }
}

}  // namespace detail

// The entry "foundry3d" of an ONNX file's metadata; empty if there is none.
inline std::string onnx_entry(const std::string& blob) {
  constexpr int metadata_props = 14, key = 1, value = 2;
  std::string found;
  detail::each_field(blob, 0, blob.size(), [&](int field, std::size_t start, std::size_t stop) {
    if (field != metadata_props) return;
    std::string name, text;
    detail::each_field(blob, start, stop, [&](int part, std::size_t from, std::size_t to) {
      if (part == key) name = blob.substr(from, to - from);
      if (part == value) text = blob.substr(from, to - from);
    });
    if (name == "foundry3d") found = text;
  });
  return found;
}

struct Metadata {
  std::string kind, precision;
  bool outside = false;  // the file takes groups of points
  std::vector<std::string> inputs, outputs, classes, parts, categories;
  std::vector<std::vector<std::size_t>> owned;  // part numbers of each category; empty = all
  std::size_t groups = 0, group_size = 0;
  std::size_t least = 0;  // the fewest points that a cloud may have
  std::optional<float> radius;
  Preparation preparation;
};

// The record of an exported file, from its JSON text.
inline Metadata parse_metadata(const std::string& text) {
  const detail::Json record = text.empty() ? detail::Json{} : detail::JsonReader(text).read();
  if (record["format"].word != "foundry3d-export")
    throw InputError("expected a file that foundry3d export wrote, got one without its record; "
                     "export the model with: foundry3d export MODEL --to onnx");
  if (record["version"].value != 1)
    throw InputError("this version of the format is not known; export the model again");
  Metadata out;
  out.kind = record["kind"].word;
  out.precision = record["precision"].word;
  out.outside = record["geometry"].word == "outside";
  out.inputs = record["inputs"].words();
  out.outputs = record["outputs"].words();
  out.classes = record["classes"].words();
  out.parts = record["parts"].words();
  out.categories = record["categories"].words();
  out.groups = static_cast<std::size_t>(record["groups"].value);
  out.group_size = static_cast<std::size_t>(record["group_size"].value);
  for (const detail::Json& category : record["owned"].items) {
    out.owned.emplace_back();
    for (const detail::Json& part : category.items)
      out.owned.back().push_back(static_cast<std::size_t>(part.value));
  }
  out.least = std::max({out.groups, out.group_size,
                        static_cast<std::size_t>(record["least_points"].value)});
  if (record["radius"].kind == detail::Json::number)
    out.radius = static_cast<float>(record["radius"].value);
  const detail::Json& how = record["preparation"];
  out.preparation.normalise = how["normalise"].value != 0;
  out.preparation.up = how["up"].word.empty() ? '\0' : how["up"].word[0];
  out.preparation.points = static_cast<std::size_t>(how["points"].value);
  if (out.inputs.empty() || out.outputs.empty() || !out.groups || !out.group_size)
    throw InputError("the record of the export is damaged; export the model again");
  return out;
}

// The largest of some logits, the first among equals, and its softmax among them.
inline std::pair<std::size_t, float> answer(const float* logits,
                                            const std::vector<std::size_t>& candidates) {
  const auto smaller = [&](std::size_t a, std::size_t b) { return logits[a] < logits[b]; };
  const std::size_t best = *std::max_element(candidates.begin(), candidates.end(), smaller);
  double sum = 0;
  for (const std::size_t i : candidates)
    sum += std::exp(static_cast<double>(logits[i] - logits[best]));
  return {best, static_cast<float>(1 / sum)};
}

// ---- A model ------------------------------------------------------------------------------------

// Numbers of any type as float, row-major.
struct Tensor {
  std::vector<std::size_t> shape;
  std::vector<float> values;
};

struct Result {
  std::map<std::string, Tensor> outputs;  // by name: features (1, c, d), pooled (1, 2d), ...
  Prepared cloud;                         // what was read, and the way back to its coordinates
  std::vector<std::string> labels;        // one per cloud, or one per point for segmenters
  std::vector<float> confidences;         // softmax of each label
};

// An exported file in a runtime. A Runtime is made from a path and a number of threads, has
// `std::string record()`, the JSON text that the file records about itself, and
// `std::vector<Tensor> run(const Metadata&, const std::vector<Tensor>&)`.
template <class Runtime>
class Model {
 public:
  explicit Model(const std::string& path, int threads = 1)
      : runtime_(path, threads), metadata_(parse_metadata(runtime_.record())) {}

  const Metadata& metadata() const { return metadata_; }

  // Runs the model on one cloud. `up` and `seed` as in `prepare`; `category` for segmenters.
  Result operator()(const Cloud& cloud, char up = 0, std::uint64_t seed = 0, int category = 0) {
    const std::size_t known = std::max<std::size_t>(1, metadata_.categories.size());
    if (category < 0 || static_cast<std::size_t>(category) >= known)
      throw InputError("expected a category of 0 to " + std::to_string(known - 1));
    Result found;
    found.cloud = prepare(cloud, metadata_.preparation, metadata_.least, up, seed);
    const std::vector<float>& points = found.cloud.points;
    const std::size_t c = metadata_.groups, k = metadata_.group_size;
    std::map<std::string, Tensor> given;
    given["points"] = {{1, points.size() / 3, 3}, points};
    given["categories"] = {{1}, {static_cast<float>(category)}};
    if (metadata_.outside) {
      Groups groups = group_points(points, c, k, metadata_.radius);
      given["centers"] = {{1, c, 3}, std::move(groups.centers)};
      given["neighborhoods"] = {{1, c, k, 3}, std::move(groups.neighborhoods)};
    }
    std::vector<Tensor> inputs;
    for (const std::string& name : metadata_.inputs) inputs.push_back(given[name]);
    std::vector<Tensor> outputs = runtime_.run(metadata_, inputs);
    for (std::size_t i = 0; i < outputs.size(); ++i)
      found.outputs[metadata_.outputs[i]] = std::move(outputs[i]);
    if (metadata_.outside) found.outputs["centers"] = given["centers"];
    label(found, static_cast<std::size_t>(category));
    return found;
  }

 private:
  void label(Result& found, std::size_t category) const {
    const auto logits = found.outputs.find("logits");
    if (logits == found.outputs.end()) return;
    const auto& names = metadata_.classes.empty() ? metadata_.parts : metadata_.classes;
    const std::size_t width = logits->second.shape.back();
    std::vector<std::size_t> candidates(width);
    std::iota(candidates.begin(), candidates.end(), std::size_t{0});
    if (!metadata_.owned.empty() && !metadata_.owned[category].empty())
      candidates = metadata_.owned[category];
    for (std::size_t at = 0; at < logits->second.values.size(); at += width) {
      const auto [best, confidence] = answer(&logits->second.values[at], candidates);
      found.labels.push_back(best < names.size() ? names[best] : std::to_string(best));
      found.confidences.push_back(confidence);
    }
  }

  Runtime runtime_;
  Metadata metadata_;
};

}  // namespace foundry3d

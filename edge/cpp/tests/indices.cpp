// Prints what the header computes for the points of a file.
//
//   indices sample CLOUD COUNT            indices of farthest point sampling
//   indices neighbours CLOUD COUNT K      then those of the K nearest points of each sample
//   indices prepare CLOUD UP POINTS       prepared points; UP - = the model's z
//   indices record MODEL                  what an ONNX file records
#include <cstdio>
#include <iostream>

#include "foundry3d_edge.hpp"

using foundry3d::Cloud;

namespace {

std::vector<float> single(const Cloud& cloud) {
  std::vector<float> out;
  for (const auto& point : cloud)
    for (const double value : point) out.push_back(static_cast<float>(value));
  return out;
}

void print(const std::vector<std::int64_t>& index) {
  for (const std::int64_t i : index) std::cout << i << " ";
  std::cout << "\n";
}

void record(const std::string& path) {
  const auto found = foundry3d::parse_metadata(foundry3d::onnx_entry(foundry3d::read_bytes(path)));
  std::cout << found.kind << "|" << found.outside << "|" << found.groups << "|" << found.group_size
            << "|" << (found.radius ? *found.radius : -1) << "|" << found.preparation.normalise
            << "|" << found.preparation.up << "|" << found.preparation.points;
  for (const auto& name : found.classes) std::cout << "|" << name;
  std::cout << "\n";
}

void run(const std::vector<std::string>& words) {
  if (words.at(0) == "record") return record(words.at(1));
  const Cloud cloud = foundry3d::read_cloud(words.at(1));
  if (words[0] == "prepare") {
    foundry3d::Preparation how;
    how.up = 'z', how.points = std::stoul(words.at(3));
    const auto found = foundry3d::prepare(cloud, how, 1, words.at(2) == "-" ? '\0' : words[2][0]);
    for (const float value : found.points) std::printf("%.9g ", static_cast<double>(value));
    for (std::size_t i = 0; i < found.points.size(); i += 3)
      for (const double value : found.original(&found.points[i])) std::printf("%.17g ", value);
    for (const std::size_t i : found.index) std::printf("%zu ", i);
    return;
  }
  const std::vector<float> points = single(cloud);
  const auto chosen = foundry3d::farthest_point_sample(points, std::stoul(words.at(2)));
  print(chosen);
  if (words[0] != "neighbours") return;
  std::vector<float> centers;
  for (const std::int64_t i : chosen)
    centers.insert(centers.end(), &points[3 * i], &points[3 * i] + 3);
  print(foundry3d::nearest_neighbors(centers, points, std::stoul(words.at(3))));
}

}  // namespace

int main(int count, char** words) {
  try {
    run({words + 1, words + count});
    return 0;
  } catch (const foundry3d::InputError& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
}

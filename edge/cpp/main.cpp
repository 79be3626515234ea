// Prints what a model says about a cloud, and how long it takes.
//
//   foundry3d_edge MODEL CLOUD [--threads N] [--repeats N] [--up x|y|z] [--features]
#include <chrono>
#include <cstdio>
#include <iostream>

#ifdef FOUNDRY3D_OPENVINO
#include "runtime_openvino.hpp"
#else
#include "runtime_onnxruntime.hpp"
#endif

namespace {

struct Options {
  std::string model, cloud;
  int threads = 1, repeats = 20;
  char up = 0;
  bool features = false;
};

int whole(const std::string& word) {
  if (word.empty() || word.size() > 6 || word.find_first_not_of("0123456789") != std::string::npos ||
      std::stoi(word) < 1)
    throw foundry3d::InputError("expected a whole number above 0, got " + word);
  return std::stoi(word);
}

Options read_options(int count, char** words) {
  Options options;
  std::vector<std::string> files;
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i], next = i + 1 < count ? words[i + 1] : "";
    if (word == "--threads") options.threads = whole(next), ++i;
    else if (word == "--repeats") options.repeats = whole(next), ++i;
    else if (word == "--up") options.up = next.size() == 1 ? next[0] : '?', ++i;
    else if (word == "--features") options.features = true;
    else files.push_back(word);
  }
  if (files.size() != 2)
    throw foundry3d::InputError(
        "expected a model and a cloud: foundry3d_edge MODEL CLOUD [--threads N] [--repeats N] "
        "[--up x|y|z] [--features]");
  options.model = files[0], options.cloud = files[1];
  return options;
}

void show(const foundry3d::Result& found, const Options& options) {
  std::cout << options.cloud << ": " << found.cloud.points.size() / 3 << " points\n";
  if (found.labels.size() == 1)
    std::cout << "label " << found.labels[0] << "\nconfidence " << found.confidences[0] << "\n";
  if (found.labels.size() > 1) {
    std::map<std::string, int> counts;
    for (const std::string& label : found.labels) ++counts[label];
    for (const auto& [label, number] : counts) std::cout << label << " " << number << " points\n";
  }
  for (const auto& [name, tensor] : found.outputs) {
    std::cout << name;
    for (const std::size_t length : tensor.shape) std::cout << " " << length;
    for (const float value : tensor.values)
      if (options.features) std::printf(" %.9g", static_cast<double>(value));
    std::fflush(stdout);
    std::cout << std::endl;
  }
}

void run(const Options& options) {
  const foundry3d::Cloud cloud = foundry3d::read_cloud(options.cloud);
  foundry3d::Model<foundry3d::DefaultRuntime> model(options.model, options.threads);
  show(model(cloud, options.up), options);
  std::vector<double> taken;
  for (int i = 0; i < options.repeats; ++i) {
    const auto began = std::chrono::steady_clock::now();
    model(cloud, options.up);
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - began;
    taken.push_back(took.count());
  }
  std::sort(taken.begin(), taken.end());
  std::cout << "latency: median " << taken[taken.size() / 2] << " ms, p95 "
            << taken[taken.size() * 95 / 100] << " ms\n";
}

}  // namespace

int main(int count, char** words) {
  try {
    run(read_options(count, words));
    return 0;
  } catch (const foundry3d::InputError& error) {
    std::cerr << "foundry3d_edge: " << error.what() << "\n";
    return 2;
  }
}

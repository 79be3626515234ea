// Exported files (.onnx, or .xml with .bin) in OpenVINO, in float32.
#pragma once

#include <openvino/openvino.hpp>

#include "foundry3d_edge.hpp"

namespace foundry3d {

class OpenVINORuntime {
 public:
  OpenVINORuntime(const std::string& path, int threads) {
    const bool onnx = ends_in(path, ".onnx");
    const std::string blob = read_bytes(path);
    // OpenVINO tries all its readers on other files, and some print lines of their own.
    if (onnx && (record_ = onnx_entry(blob)).empty()) return;
    if (!onnx && blob.rfind("<", 0) != 0) refuse(path);
    try {
      const auto model = core_.read_model(path);
      if (!onnx && model->has_rt_info("foundry3d"))
        record_ = model->get_rt_info<std::string>("foundry3d");
      // Without the first, machines with bf16 instructions round coordinates.
      compiled_ = core_.compile_model(
          model, "CPU", ov::hint::inference_precision(ov::element::f32),
          ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
          ov::inference_num_threads(threads));
      request_ = compiled_.create_infer_request();
    } catch (const ov::Exception&) {
      refuse(path);
    }
  }

  const std::string& record() const { return record_; }

  std::vector<Tensor> run(const Metadata& metadata, const std::vector<Tensor>& inputs) {
    if (inputs.size() != compiled_.inputs().size() ||
        metadata.outputs.size() != compiled_.outputs().size())
      throw InputError("the file does not have the inputs and outputs that it records");
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      ov::Tensor tensor(compiled_.input(i).get_element_type(), inputs[i].shape);
      const std::vector<float>& values = inputs[i].values;
      if (tensor.get_element_type() == ov::element::i64)
        std::copy(values.begin(), values.end(), tensor.data<std::int64_t>());
      else
        std::copy(values.begin(), values.end(), tensor.data<float>());
      request_.set_input_tensor(i, tensor);
    }
    request_.infer();
    std::vector<Tensor> found;
    for (std::size_t i = 0; i < metadata.outputs.size(); ++i) {
      ov::Tensor tensor = request_.get_output_tensor(i);
      Tensor out{tensor.get_shape(), std::vector<float>(tensor.get_size())};
      if (tensor.get_element_type() == ov::element::i64)
        std::copy_n(tensor.data<std::int64_t>(), out.values.size(), out.values.begin());
      else
        std::copy_n(tensor.data<float>(), out.values.size(), out.values.begin());
      found.push_back(std::move(out));
    }
    return found;
  }

 private:
  [[noreturn]] static void refuse(const std::string& path) {
    throw InputError(path + ": expected a file that foundry3d export wrote, but OpenVINO cannot "
                            "load it");
  }

  ov::Core core_;
  ov::CompiledModel compiled_;
  ov::InferRequest request_;
  std::string record_;
};

using DefaultRuntime = OpenVINORuntime;

}  // namespace foundry3d

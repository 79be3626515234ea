// Exported .onnx files in ONNX Runtime.
#pragma once

#include <onnxruntime_cxx_api.h>

#include "foundry3d_edge.hpp"

namespace foundry3d {

class ONNXRuntime {
 public:
  ONNXRuntime(const std::string& path, int threads) : env_(ORT_LOGGING_LEVEL_FATAL, "foundry3d") {
    const std::string bytes = read_bytes(path);
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(threads);
    try {
      record_ = onnx_entry(bytes);
      session_ = Ort::Session(env_, bytes.data(), bytes.size(), options);
    } catch (const Ort::Exception&) {
      throw InputError(path + ": expected a file that foundry3d export wrote, but ONNX Runtime "
                              "cannot load it");
    }
  }

  const std::string& record() const { return record_; }

  std::vector<Tensor> run(const Metadata& metadata, const std::vector<Tensor>& inputs) {
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::vector<Ort::Value> given;
    std::vector<std::vector<std::int64_t>> whole(inputs.size());  // alive while the session runs
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const std::vector<std::int64_t> shape(inputs[i].shape.begin(), inputs[i].shape.end());
      const std::vector<float>& values = inputs[i].values;
      if (metadata.inputs[i] == "categories") {
        whole[i].assign(values.begin(), values.end());
        given.push_back(Ort::Value::CreateTensor<std::int64_t>(
            memory, whole[i].data(), whole[i].size(), shape.data(), shape.size()));
      } else {
        given.push_back(Ort::Value::CreateTensor<float>(
            memory, const_cast<float*>(values.data()), values.size(), shape.data(), shape.size()));
      }
    }
    const auto in = pointers(metadata.inputs), out = pointers(metadata.outputs);
    const auto values = session_.Run(Ort::RunOptions{nullptr}, in.data(), given.data(),
                                     given.size(), out.data(), out.size());
    std::vector<Tensor> found;
    for (const Ort::Value& value : values) {
      const auto info = value.GetTensorTypeAndShapeInfo();
      const auto shape = info.GetShape();
      Tensor tensor{{shape.begin(), shape.end()}, std::vector<float>(info.GetElementCount())};
      if (info.GetElementType() == ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64)
        std::copy_n(value.GetTensorData<std::int64_t>(), tensor.values.size(),
                    tensor.values.begin());
      else
        std::copy_n(value.GetTensorData<float>(), tensor.values.size(), tensor.values.begin());
      found.push_back(std::move(tensor));
    }
    return found;
  }

 private:
  static std::vector<const char*> pointers(const std::vector<std::string>& names) {
    std::vector<const char*> out;
    for (const std::string& name : names) out.push_back(name.c_str());
    return out;
  }

  Ort::Env env_;
  Ort::Session session_{nullptr};
  std::string record_;
};

using DefaultRuntime = ONNXRuntime;

}  // namespace foundry3d

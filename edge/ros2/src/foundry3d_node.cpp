// A ROS 2 node around foundry3d_edge.hpp: point clouds in, labels and latency out.
//
// Subscribes to `points` (sensor_msgs/PointCloud2) and publishes, for each cloud,
//   label       (std_msgs/String)   class of the cloud; only for classifiers
//   confidence  (std_msgs/Float32)  softmax of the label
//   latency     (std_msgs/Float32)  milliseconds from the message's arrival to the result
//   features    (std_msgs/Float32MultiArray)  pooled features
//
// Parameters: model (path of an exported file), threads, up (x, y or z; empty = the model's), seed.
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <string>

#include <rclcpp/rclcpp.hpp>
#include <sensor_msgs/msg/point_cloud2.hpp>
#include <sensor_msgs/point_cloud2_iterator.hpp>
#include <std_msgs/msg/float32.hpp>
#include <std_msgs/msg/float32_multi_array.hpp>
#include <std_msgs/msg/string.hpp>

#ifdef FOUNDRY3D_OPENVINO
#include "runtime_openvino.hpp"
#else
#include "runtime_onnxruntime.hpp"
#endif

using sensor_msgs::msg::PointCloud2;

// The points of a message; a sensor writes NaN where it saw nothing, and those are left out.
foundry3d::Cloud cloud_of(const PointCloud2& message) {
  foundry3d::Cloud cloud;
  cloud.reserve(static_cast<std::size_t>(message.width) * message.height);
  sensor_msgs::PointCloud2ConstIterator<float> x(message, "x"), y(message, "y"), z(message, "z");
  for (; x != x.end(); ++x, ++y, ++z)
    if (std::isfinite(*x) && std::isfinite(*y) && std::isfinite(*z)) cloud.push_back({*x, *y, *z});
  return cloud;
}

class Foundry3DNode : public rclcpp::Node {
 public:
  Foundry3DNode() : Node("foundry3d") {
    const auto path = declare_parameter<std::string>("model", "");
    const auto threads = static_cast<int>(declare_parameter<int>("threads", 1));
    const auto up = declare_parameter<std::string>("up", "");
    up_ = up.empty() ? '\0' : up[0];
    seed_ = static_cast<std::uint64_t>(declare_parameter<int>("seed", 0));
    model_ = std::make_unique<foundry3d::Model<foundry3d::DefaultRuntime>>(path, threads);
    label_ = create_publisher<std_msgs::msg::String>("label", 10);
    confidence_ = create_publisher<std_msgs::msg::Float32>("confidence", 10);
    latency_ = create_publisher<std_msgs::msg::Float32>("latency", 10);
    features_ = create_publisher<std_msgs::msg::Float32MultiArray>("features", 10);
    // The sensor's quality of service, and a queue of one: a cloud that waited is out of date.
    subscription_ = create_subscription<PointCloud2>(
        "points", rclcpp::SensorDataQoS().keep_last(1),
        std::bind(&Foundry3DNode::receive, this, std::placeholders::_1));
  }

 private:
  void receive(const PointCloud2::ConstSharedPtr message) {
    const auto began = std::chrono::steady_clock::now();
    try {
      publish((*model_)(cloud_of(*message), up_, seed_));
    } catch (const std::exception& error) {  // also of clouds without fields x, y and z
      RCLCPP_WARN_THROTTLE(get_logger(), *get_clock(), 5000, "%s", error.what());
      return;
    }
    const std::chrono::duration<float, std::milli> took = std::chrono::steady_clock::now() - began;
    std_msgs::msg::Float32 latency;
    latency.data = took.count();
    latency_->publish(latency);
  }

  void publish(const foundry3d::Result& found) {
    if (found.labels.size() == 1) {
      std_msgs::msg::String label;
      label.data = found.labels[0];
      label_->publish(label);
      std_msgs::msg::Float32 confidence;
      confidence.data = found.confidences[0];
      confidence_->publish(confidence);
    }
    const auto pooled = found.outputs.find("pooled");
    if (pooled == found.outputs.end()) return;
    std_msgs::msg::Float32MultiArray features;
    features.data = pooled->second.values;
    features_->publish(features);
  }

  std::unique_ptr<foundry3d::Model<foundry3d::DefaultRuntime>> model_;
  char up_ = 0;
  std::uint64_t seed_ = 0;
  rclcpp::Publisher<std_msgs::msg::String>::SharedPtr label_;
  rclcpp::Publisher<std_msgs::msg::Float32>::SharedPtr confidence_, latency_;
  rclcpp::Publisher<std_msgs::msg::Float32MultiArray>::SharedPtr features_;
  rclcpp::Subscription<PointCloud2>::SharedPtr subscription_;
};

int main(int count, char** words) {
  rclcpp::init(count, words);
  try {
    rclcpp::spin(std::make_shared<Foundry3DNode>());
  } catch (const foundry3d::InputError& error) {
    RCLCPP_FATAL(rclcpp::get_logger("foundry3d"), "%s", error.what());
    rclcpp::shutdown();
    return 2;
  }
  rclcpp::shutdown();
  return 0;
}

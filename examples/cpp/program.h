// A package of `pypose-ops export --format aoti`, with the checks that AOTInductor leaves out: what it is not compiled for
// it would misread in silence.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cctype>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

// Of libpypose_ops. A reference to it also keeps the linker from dropping the library, which registers the operators when
// it is loaded.
extern "C" const char* pypose_ops_build_info();

class PoseProgram {
 public:
  explicit PoseProgram(const std::string& path) {
    pypose_ops_build_info();
    try {
      package_ = std::make_unique<torch::inductor::AOTIModelPackageLoader>(path);
    } catch (const std::exception& error) {
      const std::string reason = error.what();
      throw std::runtime_error(path + ": cannot be loaded: " + reason.substr(0, reason.find('\n')));
    }
    const auto metadata = package_->get_metadata();
    const auto entry = metadata.find("pypose_ops");
    TORCH_CHECK(entry != metadata.end(), path, ": expected a package of pypose-ops export, it has no such metadata");
    boxes_ = number(entry->second, "\"boxes\": ");
  }

  // image (H, W, 3) uint8 and boxes (N, 4) float32, two corners in its pixels, to joints (N, K, 2) in its pixels, NaN where
  // none was found, and scores (N, K).
  std::pair<at::Tensor, at::Tensor> operator()(const at::Tensor& image, const at::Tensor& boxes) {
    TORCH_CHECK(
        image.scalar_type() == at::kByte && image.dim() == 3 && image.size(2) == 3,
        "image must be (H, W, 3) uint8, got ", image.sizes(), " ", image.scalar_type());
    TORCH_CHECK(
        image.size(0) >= 1 && image.size(0) <= kLargestSide && image.size(1) >= 1 && image.size(1) <= kLargestSide,
        "image must have 1 to ", kLargestSide, " pixels a side, got ", image.sizes());
    TORCH_CHECK(
        boxes.scalar_type() == at::kFloat && boxes.dim() == 2 && boxes.size(1) == 4, "boxes must be (N, 4) float32, got ",
        boxes.sizes(), " ", boxes.scalar_type());
    const int64_t least = boxes_ > 0 ? boxes_ : 1, most = boxes_ > 0 ? boxes_ : kMostBoxes;
    TORCH_CHECK(
        boxes.size(0) >= least && boxes.size(0) <= most, "boxes must be ", least, " to ", most, " boxes, got ",
        boxes.size(0));
    const std::vector<at::Tensor> found = package_->run({image.contiguous(), boxes.contiguous()});
    return {found.at(0), found.at(1)};
  }

 private:
  static constexpr int64_t kLargestSide = 16384, kMostBoxes = 1024;

  // The number after a key of the metadata's JSON; 0 for null.
  static int64_t number(const std::string& json, const std::string& key) {
    const size_t at = json.find(key);
    TORCH_CHECK(at != std::string::npos, "the package's metadata has no ", key);
    const std::string value = json.substr(at + key.size(), 20);
    return std::isdigit(static_cast<unsigned char>(value[0])) ? std::stoll(value) : 0;
  }

  std::unique_ptr<torch::inductor::AOTIModelPackageLoader> package_;
  int64_t boxes_ = 0;
};

// Joints of the person in a crop, without Python: loads a package of export.py, runs it on raw float32 pixels.
//   pose PACKAGE.pt2 CROP.bin HEIGHT WIDTH A B C D E F      (the affine from the crop's pixels to the image's, row by row)
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <vector>

// Of libpypose_ops. Naming one function of it also keeps a linker from leaving out the library, which registers the
// operators when it is loaded.
extern "C" const char* pypose_ops_build_info();

namespace {

torch::Tensor read_crop(const char* path, int64_t height, int64_t width) {
  torch::Tensor crop = torch::empty({1, 3, height, width});
  std::ifstream file(path, std::ios::binary);
  file.read(static_cast<char*>(crop.data_ptr()), static_cast<std::streamsize>(crop.nbytes()));
  TORCH_CHECK(file && file.peek() == EOF, path, " is not a crop of 3 x ", height, " x ", width, " float32");
  return crop;
}

void run(char** arguments) {
  std::cerr << pypose_ops_build_info();
  std::vector<float> affine;
  for (int i = 5; i < 11; ++i) {
    affine.push_back(std::strtof(arguments[i], nullptr));
  }
  const torch::Tensor crop = read_crop(arguments[2], std::atoll(arguments[3]), std::atoll(arguments[4]));
  const torch::Tensor to_image = torch::tensor(affine).view({1, 2, 3});

  torch::inductor::AOTIModelPackageLoader package(arguments[1]);
  const std::vector<torch::Tensor> found = package.run({crop, to_image});
  const torch::Tensor coords = found[0].cpu(), scores = found[1].cpu();
  for (int64_t joint = 0; joint < coords.size(1); ++joint) {
    std::printf(
        "%.5f %.5f %.5f\n", coords[0][joint][0].item<float>(), coords[0][joint][1].item<float>(),
        scores[0][joint].item<float>());
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 11) {
    std::cerr << "usage: pose PACKAGE.pt2 CROP.bin HEIGHT WIDTH A B C D E F\n";
    return 2;
  }
  try {
    run(arguments);
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}

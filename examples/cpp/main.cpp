// Joints of people in an image, without Python.
//
//   pose PACKAGE.pt2 IMAGE HEIGHT WIDTH X1 Y1 X2 Y2 [X1 Y1 X2 Y2 ...]
//
// IMAGE holds HEIGHT x WIDTH x 3 bytes, RGB, row by row; the numbers are boxes of people in pixels. One line a joint: x, y and
// score, NaN NaN 0 where it was not found; an empty line after each person.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "program.h"

namespace {

at::Tensor read_image(const char* path, int64_t height, int64_t width) {
  TORCH_CHECK(height > 0 && width > 0, "HEIGHT and WIDTH must be positive, got ", height, " and ", width);
  at::Tensor image = at::empty({height, width, 3}, at::kByte);
  std::ifstream file(path, std::ios::binary);
  TORCH_CHECK(file, path, ": cannot be read");
  file.read(static_cast<char*>(image.data_ptr()), image.numel());
  TORCH_CHECK(
      file.gcount() == image.numel() && file.peek() == EOF, path, ": expected ", height, " x ", width, " x 3 bytes");
  return image;
}

void run(int count, char** arguments) {
  const at::Tensor image = read_image(arguments[2], std::atoll(arguments[3]), std::atoll(arguments[4]));
  at::Tensor boxes = at::empty({(count - 5) / 4, 4});
  for (int i = 5; i < count; ++i) {
    boxes.view(-1)[i - 5] = std::strtof(arguments[i], nullptr);
  }
  PoseProgram program(arguments[1]);
  const auto [joints, scores] = program(image, boxes);
  for (int64_t n = 0; n < joints.size(0); ++n) {
    for (int64_t k = 0; k < joints.size(1); ++k) {
      std::printf(
          "%.5f %.5f %.5f\n", joints[n][k][0].item<float>(), joints[n][k][1].item<float>(), scores[n][k].item<float>());
    }
    std::printf("\n");
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 9 || (count - 5) % 4 != 0) {
    std::cerr << "usage: pose PACKAGE.pt2 IMAGE HEIGHT WIDTH X1 Y1 X2 Y2 [X1 Y1 X2 Y2 ...]\n";
    return 2;
  }
  try {
    run(count, arguments);
  } catch (const c10::Error& error) {
    std::cerr << error.what_without_backtrace() << "\n";
    return 1;
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}

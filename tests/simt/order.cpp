#include "order.h"

#include <cstdlib>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

namespace simt {

Order::Order() {
  const char* variable = std::getenv("PYPOSE_OPS_SIMT_ORDER");
  const std::string text = variable == nullptr || *variable == 0 ? "ascending" : variable;
  const std::string seed = text.rfind("shuffle:", 0) == 0 ? text.substr(8) : "";
  if (text == "descending") {
    kind_ = Kind::descending;
  } else if (!seed.empty() && seed.size() < 19 && seed.find_first_not_of("0123456789") == std::string::npos) {
    kind_ = Kind::shuffled;
    random_.seed(std::stoull(seed));
  } else if (text != "ascending") {
    throw std::runtime_error(
        "simt: PYPOSE_OPS_SIMT_ORDER must be ascending, descending or shuffle:<seed>, got '" + text + "'");
  }
}

void Order::permute(unsigned* numbers, unsigned count) {
  for (unsigned i = 0; i < count; ++i) {
    numbers[i] = kind_ == Kind::descending ? count - 1 - i : i;
  }
  if (kind_ == Kind::shuffled) {
    for (unsigned i = count; i > 1; --i) {
      std::swap(numbers[i - 1], numbers[random_() % i]);
    }
  }
}

// There may be too many blocks for a list of them: block i is i * step + first modulo their number, step coprime to it.
void Order::start_blocks(uint64_t count) {
  block_count_ = count;
  if (kind_ == Kind::descending) {
    first_block_ = block_step_ = count - 1;
  } else if (kind_ == Kind::shuffled) {
    first_block_ = random_() % count;
    do {
      block_step_ = random_() % (1u << 20) + 1;
    } while (std::gcd(block_step_, count) != 1);
  }
}

}  // namespace simt

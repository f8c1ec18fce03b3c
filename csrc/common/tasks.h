// Tasks for torch's threads, taken one by one. torch gives every thread an equal part at once, and the call then takes as long
// as the slowest: twice as long as it need, where another process has one of two processors.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "common/tensors.h"

namespace pypose_ops {

class Tasks {
 public:
  explicit Tasks(int64_t count) : count_(count) {}
  // The number of the next task, if there is one.
  bool take(int64_t& task) {
    task = next_.fetch_add(1, std::memory_order_relaxed);
    return task < count_;
  }

 private:
  std::atomic<int64_t> next_{0};
  const int64_t count_;
};

// work(tasks) in every thread, which takes them until there are none. A task should take 10 us or more.
template <typename Work>
void share_tasks(int64_t count, const Work& work) {
  Tasks tasks(count);
  const int64_t threads = std::min<int64_t>(torch::stable::get_num_threads(), count);
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) { work(tasks); });
}

// work(begin, end) for parts of 0 ... count - 1 of `grain` or more, several for each thread.
template <typename Work>
void share_ranges(int64_t count, int64_t grain, const Work& work) {
  constexpr int64_t kParts = 8;  // so that a thread waits for an eighth of another's share at most
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t parts = threads * (threads > 1 ? kParts : 1);
  const int64_t size = std::max(grain, (count + parts - 1) / parts);
  share_tasks((count + size - 1) / size, [&](Tasks& tasks) {
    for (int64_t task; tasks.take(task);) {
      work(task * size, std::min(count, (task + 1) * size));
    }
  });
}

}  // namespace pypose_ops

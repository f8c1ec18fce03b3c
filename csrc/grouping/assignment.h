// Assignment of rows to columns, each used at most once: greedy by score, or optimal.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace pypose_ops {
namespace grouping {

struct Connection {
  int row, column;
  double score;
};

// Shortest augmenting paths with potentials (Jonker and Volgenant 1987), rows <= columns: the column of every row so
// that the sum of costs is least. Of costs that are not finite, or whose sums overflow, some assignment.
class LinearAssignment {
 public:
  const std::vector<int>& solve(int rows, int columns, const double* costs) {
    columns_ = columns;
    costs_ = costs;
    row_of_.assign(columns + 1, -1);
    row_potential_.assign(rows, 0.0);
    column_potential_.assign(columns + 1, 0.0);
    distance_.resize(columns + 1);
    done_.resize(columns + 1);
    for (int row = 0; row < rows; ++row) {
      augment(row);
    }
    column_of_.resize(rows);
    for (int column = 0; column < columns; ++column) {
      if (row_of_[column] >= 0) {
        column_of_[row_of_[column]] = column;
      }
    }
    return column_of_;
  }

 private:
  // Gives the row a column; rows met on the way move to others. Column columns_ represents the start.
  void augment(int row) {
    constexpr double kFar = std::numeric_limits<double>::infinity();
    std::fill(distance_.begin(), distance_.end(), kFar);
    previous_.assign(columns_ + 1, columns_);
    std::fill(done_.begin(), done_.end(), 0);
    row_of_[columns_] = row;
    int column = columns_;
    do {
      done_[column] = 1;
      const int from = row_of_[column];
      int nearest = -1;
      double step = kFar;
      for (int c = 0; c < columns_; ++c) {
        if (done_[c]) {
          continue;
        }
        const double reduced = costs_[int64_t(from) * columns_ + c] - row_potential_[from] - column_potential_[c];
        if (reduced < distance_[c]) {
          distance_[c] = reduced;
          previous_[c] = column;
        }
        if (distance_[c] < step || nearest < 0) {  // some column also where no distance is a number
          step = distance_[c];
          nearest = c;
        }
      }
      for (int c = 0; c <= columns_; ++c) {
        if (done_[c]) {
          row_potential_[row_of_[c]] += step;
          column_potential_[c] -= step;
        } else {
          distance_[c] -= step;
        }
      }
      column = nearest;
    } while (row_of_[column] >= 0);
    while (column != columns_) {
      row_of_[column] = row_of_[previous_[column]];
      column = previous_[column];
    }
  }

  int columns_ = 0;
  const double* costs_ = nullptr;
  std::vector<int> row_of_, column_of_, previous_;
  std::vector<double> row_potential_, column_potential_, distance_;
  std::vector<char> done_;
};

inline void sort_by_score(std::vector<Connection>& connections) {
  std::sort(connections.begin(), connections.end(), [](const Connection& x, const Connection& y) {
    if (x.score != y.score) {
      return x.score > y.score;
    }
    return x.row != y.row ? x.row < y.row : x.column < y.column;
  });
}

// One limb's connections out of its table of scores (rows x columns, a row every `stride`), best first. Scores of at
// most `lowest` (which is not negative), and those that are not finite, connect nothing.
class Connector {
 public:
  template <typename T>
  const std::vector<Connection>& greedy(const T* scores, int rows, int columns, int64_t stride, double lowest) {
    collect(scores, rows, columns, stride, lowest);
    sort_by_score(candidates_);
    row_taken_.assign(rows, 0);
    column_taken_.assign(columns, 0);
    chosen_.clear();
    for (const Connection& candidate : candidates_) {
      if (!row_taken_[candidate.row] && !column_taken_[candidate.column]) {
        row_taken_[candidate.row] = column_taken_[candidate.column] = 1;
        chosen_.push_back(candidate);
      }
    }
    return chosen_;
  }

  // The connections whose scores have the largest sum.
  template <typename T>
  const std::vector<Connection>& optimal(const T* scores, int rows, int columns, int64_t stride, double lowest) {
    collect(scores, rows, columns, stride, lowest);
    if (!each_row_has_its_best(rows, columns)) {
      const bool turned = rows > columns;
      const int fewer = turned ? columns : rows;
      const int more = turned ? rows : columns;
      costs_.assign(int64_t(fewer) * more, 0.0);
      for (const Connection& c : candidates_) {
        costs_[turned ? int64_t(c.column) * more + c.row : int64_t(c.row) * more + c.column] = -c.score;
      }
      const std::vector<int>& partner = solver_.solve(fewer, more, costs_.data());
      chosen_.clear();
      for (const Connection& c : candidates_) {
        if (turned ? partner[c.column] == c.row : partner[c.row] == c.column) {
          chosen_.push_back(c);
        }
      }
    }
    sort_by_score(chosen_);
    return chosen_;
  }

 private:
  template <typename T>
  void collect(const T* scores, int rows, int columns, int64_t stride, double lowest) {
    candidates_.clear();
    for (int row = 0; row < rows; ++row) {
      for (int column = 0; column < columns; ++column) {
        const double score = scores[row * stride + column];
        if (score > lowest && score <= std::numeric_limits<T>::max()) {
          candidates_.push_back({row, column, score});
        }
      }
    }
  }

  // Mostly the rows' best columns are all different, and then they are the answer.
  bool each_row_has_its_best(int rows, int columns) {
    best_.assign(rows, -1);
    for (size_t i = 0; i < candidates_.size(); ++i) {
      int& best = best_[candidates_[i].row];
      best = best < 0 || candidates_[i].score > candidates_[best].score ? static_cast<int>(i) : best;
    }
    column_taken_.assign(columns, 0);
    chosen_.clear();
    for (const int best : best_) {
      if (best < 0) {
        continue;
      }
      char& taken = column_taken_[candidates_[best].column];
      if (taken) {
        return false;
      }
      taken = 1;
      chosen_.push_back(candidates_[best]);
    }
    return true;
  }

  LinearAssignment solver_;
  std::vector<Connection> candidates_, chosen_;
  std::vector<double> costs_;
  std::vector<int> best_;
  std::vector<char> row_taken_, column_taken_;
};

}  // namespace grouping
}  // namespace pypose_ops

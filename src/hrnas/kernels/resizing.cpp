// Bilinear resizing of maps, channels innermost, forward and backward, as torch's with align_corners=False.
//
// A task is a row of what is written, forward an output's, backward an input's: no two tasks write the same number, and
// any number of threads gives the same bits.

#include <cmath>
#include <vector>

#include "vectors.h"

namespace {

// The two places along one side that an output is made of, and the share of the second.
template <typename T>
struct Source {
  Index low, high;
  T share;
};

template <typename T>
std::vector<Source<T>> sources(Index from, Index to) {
  std::vector<Source<T>> found(to);
  const double scale = (double)from / (double)to;
  for (Index place = 0; place < to; ++place) {
    const double at = std::max(scale * ((double)place + 0.5) - 0.5, 0.0);
    const Index low = std::min((Index)at, from - 1);
    found[place] = {low, std::min(low + 1, from - 1), (T)(at - (double)low)};
  }
  return found;
}

// shape: images, channels, height, width, and those of the output.
template <typename T>
void run_resize(const Index* shape, const T* x, T* out) {
  constexpr int lanes = Simd<T>::lanes;
  const Index images = shape[0], channels = shape[1], height = shape[2], width = shape[3];
  const Index out_height = shape[4], out_width = shape[5];
  const auto rows = sources<T>(height, out_height), columns = sources<T>(width, out_width);
#pragma omp parallel for schedule(static)
  for (Index task = 0; task < images * out_height; ++task) {
    const Source<T> row = rows[task % out_height];
    const T* image = x + task / out_height * height * width * channels;
    const T *above = image + row.low * width * channels, *below = image + row.high * width * channels;
    T* to = out + task * out_width * channels;
    for (Index column = 0; column < out_width; ++column, to += channels) {
      const Source<T> side = columns[column];
      const Index left = side.low * channels, right = side.high * channels;
      const T se = row.share * side.share, sw = row.share - se, ne = side.share - se, nw = 1 - row.share - ne;
      for (Index channel = 0; channel < channels; channel += lanes) {
        const int count = (int)std::min<Index>(lanes, channels - channel);
        const Vector<T> upper = nw * load(above + left + channel, count) + ne * load(above + right + channel, count);
        const Vector<T> lower = sw * load(below + left + channel, count) + se * load(below + right + channel, count);
        store(to + channel, upper + lower, count);
      }
    }
  }
}

template <typename T>
void run_resize_backward(const Index* shape, const T* gradient, T* out) {
  constexpr int lanes = Simd<T>::lanes;
  const Index images = shape[0], channels = shape[1], height = shape[2], width = shape[3];
  const Index out_height = shape[4], out_width = shape[5], length = out_width * channels;
  const auto rows = sources<T>(height, out_height), columns = sources<T>(width, out_width);
  std::vector<Index> firsts(height + 1, out_height);  // the first output row whose lower source is this row or later
  for (Index place = 0, next = 0; place < out_height; ++place) {
    while (next <= rows[place].low) firsts[next++] = place;
  }
#pragma omp parallel for schedule(static)
  for (Index task = 0; task < images * height; ++task) {
    const Index row = task % height;
    const T* image = gradient + task / height * out_height * length;
    T* to = out + task * width * channels;
    std::memset(to, 0, width * channels * sizeof(T));
    // What of the output's rows comes down to this row, then, along it, to its columns.
    std::vector<T> sums;
    for (Index place = firsts[std::max<Index>(row - 1, 0)]; place < firsts[row + 1]; ++place) {
      const T share = (rows[place].low == row ? 1 - rows[place].share : 0) +
                      (rows[place].high == row ? rows[place].share : 0);
      if (share == 0) continue;
      if (sums.empty()) sums.resize(length);
      const T* from = image + place * length;
      for (Index number = 0; number < length; ++number) sums[number] += share * from[number];
    }
    if (sums.empty()) continue;
    for (Index column = 0; column < out_width; ++column) {
      const Source<T> side = columns[column];
      T *left = to + side.low * channels, *right = to + side.high * channels;
      for (Index channel = 0; channel < channels; channel += lanes) {
        const int count = (int)std::min<Index>(lanes, channels - channel);
        const Vector<T> sum = load(sums.data() + column * channels + channel, count);
        store(left + channel, load(left + channel, count) + (1 - side.share) * sum, count);
        store(right + channel, load(right + channel, count) + side.share * sum, count);
      }
    }
  }
}

}  // namespace

#define HRNAS_EXPORT(T, TYPE)                                                                        \
  extern "C" void resize_##TYPE(const Index* shape, const T* x, T* out) {                              \
    run_resize(shape, x, out);                                                                       \
  }                                                                                                  \
  extern "C" void resize_backward_##TYPE(const Index* shape, const T* gradient, T* out) {            \
    run_resize_backward(shape, gradient, out);                                                       \
  }

HRNAS_EXPORT(float, float32)
HRNAS_EXPORT(double, float64)

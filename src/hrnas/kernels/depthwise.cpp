// Mixed depthwise convolution with batch norm and ReLU on both sides, forward and backward, on a CPU.
//
// A map is (N, H, W, C), channels innermost, of the channels of one slice. A task is an image, a chunk of a slice's
// channels, and a band of rows. It keeps the rows that a kernel sees, normalised and activated, in a ring of padded rows that stays in cache:
// nothing of what torch would write between convolution, norm and activation goes through memory. How the work is
// divided depends on shapes alone, and sums of tasks are added in their order: any number of threads gives the same bits.

#include <cmath>
#include <vector>

#include "vectors.h"

namespace {

constexpr int kVectors = 4;    // of a chunk
constexpr Index kBand = 16;    // rows of a task
constexpr int kTile = 8;       // columns whose sums are kept in registers
constexpr Index kPixels = 256; // at least, of a task that goes through a map element by element
constexpr Index kParts = 64;   // at most, of such a map
constexpr Index kFlush = 64;   // pixels after which float sums are added to double ones

// Hidden channels of one kernel size that lie together, as a map of their own.
template <typename T>
struct Slice {
  Index channels;
  Index first;      // among the channels of all slices
  int size;         // of the kernel
  const T* weight;  // (channels, size, size)
  Index offset;     // of its weights among those of all slices
};

struct Chunk {
  int slice;
  Index first;  // channel of the slice
  int count;    // of channels
};

// Slices and sizes of one call. Rows of `x` are height x width, of `d` out_height x out_width.
template <typename T>
struct Layer {
  Index images, height, width, stride, out_height, out_width;
  std::vector<Slice<T>> slices;
  std::vector<Chunk> chunks;
  Index channels = 0, num_weights = 0;

  Layer(const Index* shape, Index num_slices, const Index* widths, const Index* sizes, const T* const* weights)
      : images(shape[0]), height(shape[1]), width(shape[2]), stride(shape[3]) {
    out_height = divide_up(height, stride);
    out_width = divide_up(width, stride);
    for (Index number = 0; number < num_slices; ++number) {
      slices.push_back({widths[number], channels, (int)sizes[number], weights[number], num_weights});
      const Index widest = kVectors * Simd<T>::lanes;
      for (Index start = 0; start < widths[number]; start += widest) {
        chunks.push_back({(int)number, start, (int)std::min(widest, widths[number] - start)});
      }
      num_weights += widths[number] * sizes[number] * sizes[number];
      channels += widths[number];
    }
    // The largest kernels first, so that no thread ends with one alone.
    std::stable_sort(chunks.begin(), chunks.end(), [this](const Chunk& one, const Chunk& other) {
      return slices[one.slice].size > slices[other.slice].size;
    });
  }
};

// A batch norm: what is subtracted, multiplied by, and then by, and added; over the channels of all slices.
template <typename T>
struct Norm {
  const T *mean, *rstd, *weight, *bias;
};

// The rows a kernel sees: `size` of them, by the row's number; each row has `vectors` x `columns` vectors.
template <typename T>
class Ring {
 public:
  Ring(int size, int vectors, Index columns)
      : size_(size), vectors_(vectors), columns_(columns), scratch_((Index)size * vectors * columns), rows_(size, -9999),
        is_zero_(size, true) {}

  Vector<T>* row(Index number) { return scratch_.get() + slot(number) * vectors_ * columns_; }
  bool is_zero(Index number) const { return is_zero_[slot(number)]; }

  // Make the row the given number's; true when the caller must fill it.
  bool take(Index number, bool is_inside) {
    const Index at = slot(number);
    if (rows_[at] == number) return false;
    rows_[at] = number;
    if (!is_inside && !is_zero_[at]) {
      std::memset(static_cast<void*>(row(number)), 0, (std::size_t)vectors_ * columns_ * 64);
    }
    is_zero_[at] = !is_inside;
    return is_inside;
  }

 private:
  Index slot(Index number) const { return ((number % size_) + size_) % size_; }
  int size_, vectors_;
  Index columns_;
  Scratch<T> scratch_;
  std::vector<Index> rows_;
  std::vector<char> is_zero_;
};

// Per-channel values of a chunk, as vectors.
template <typename T>
struct Channels {
  Vector<T> values[kVectors];
  Channels(const T* all, const Layer<T>& layer, const Chunk& chunk) {
    const T* own = all + layer.slices[chunk.slice].first + chunk.first;
    for (int v = 0; v < kVectors; ++v) {
      const int left = chunk.count - v * Simd<T>::lanes;
      values[v] = left > 0 ? load(own + v * Simd<T>::lanes, left) : Vector<T>{};
    }
  }
  Vector<T> operator[](int v) const { return values[v]; }
};

// A norm of a chunk as value * scale + shift.
template <typename T>
struct Affine {
  Channels<T> mean, rstd, scale, shift;
  Affine(const Norm<T>& norm, const Layer<T>& layer, const Chunk& chunk)
      : mean(norm.mean, layer, chunk), rstd(norm.rstd, layer, chunk), scale(norm.weight, layer, chunk),
        shift(norm.bias, layer, chunk) {
    for (int v = 0; v < kVectors; ++v) {
      scale.values[v] *= rstd[v];
      shift.values[v] -= mean[v] * scale[v];
    }
  }
};

// Weights of a chunk as (vector, tap) vectors; flipped for the gradient of the input.
template <typename T>
void gather_weights(const Slice<T>& slice, const Chunk& chunk, bool is_flipped, Vector<T>* to) {
  const int taps = slice.size * slice.size;
  for (int channel = 0; channel < chunk.count; ++channel) {
    const T* from = slice.weight + (chunk.first + channel) * taps;
    const int v = channel / Simd<T>::lanes, lane = channel % Simd<T>::lanes;
    for (int tap = 0; tap < taps; ++tap) to[v * taps + tap][lane] = from[is_flipped ? taps - 1 - tap : tap];
  }
}

// Fill a ring's row with the normalised and activated row at `x`; the columns at its sides stay zero.
template <typename T>
void fill_activated(Vector<T>* row, Index pitch, int padding, const T* x, Index width, Index channels,
                    const Chunk& chunk, const Affine<T>& norm) {
  constexpr int lanes = Simd<T>::lanes;
  const int whole = chunk.count / lanes, rest = chunk.count % lanes;
  for (Index column = 0; column < width; ++column) {
    const T* from = x + column * channels + chunk.first;
    Vector<T>* to = row + padding + column;
    for (int v = 0; v < whole; ++v) to[v * pitch] = relu<T>(load_all(from + v * lanes) * norm.scale[v] + norm.shift[v]);
    if (rest) to[whole * pitch] = relu<T>(load(from + whole * lanes, rest) * norm.scale[whole] + norm.shift[whole]);
  }
}

// K is the kernel's size, or 0 for one that is only known now; S the stride. `part`: means and squares of the task.
template <typename T, int K, int S>
void forward(const Layer<T>& layer, const Chunk& chunk, Index image, Index band, const T* x, const Norm<T>& norm, T* d,
             double* part) {
  constexpr int lanes = Simd<T>::lanes;
  const Slice<T>& slice = layer.slices[chunk.slice];
  const int size = K ? K : slice.size, padding = size / 2, taps = size * size;
  const int vectors = (int)divide_up(chunk.count, lanes);
  const Index row_length = layer.width * slice.channels;
  const Index pitch =
      std::max((divide_up(layer.out_width, kTile) * kTile - 1) * S + size, layer.width + 2 * padding);
  const Affine<T> affine(norm, layer, chunk);
  Ring<T> ring(size, vectors, pitch);
  Scratch<T> weights(vectors * taps);
  gather_weights(slice, chunk, false, weights.get());
  double sums[kVectors * lanes] = {}, squares[kVectors * lanes] = {};
  Vector<T> origin[kVectors] = {};
  const Index first = band * kBand, last = std::min(first + kBand, layer.out_height);
  for (Index out_row = first; out_row < last; ++out_row) {
    const Index top = out_row * S - padding;
    for (int k = 0; k < size; ++k) {
      const Index y = top + k;
      if (ring.take(y, y >= 0 && y < layer.height)) {
        fill_activated<T>(ring.row(y), pitch, padding, x + (image * layer.height + y) * row_length, layer.width,
                          slice.channels, chunk, affine);
      }
    }
    T* out = d + (image * layer.out_height + out_row) * layer.out_width * slice.channels + chunk.first;
    for (int v = 0; v < vectors; ++v) {
      const int left = std::min(lanes, chunk.count - v * lanes);
      Vector<T> sum = {}, square = {};
      for (Index column = 0; column < layer.out_width; column += kTile) {
        Vector<T> tile[kTile] = {};
        for (int ky = 0; ky < size; ++ky) {
          if (ring.is_zero(top + ky)) continue;
          const Vector<T>* row = ring.row(top + ky) + v * pitch + column * S;
          const Vector<T>* weight = weights.get() + v * taps + ky * size;
#pragma GCC unroll 7
          for (int kx = 0; kx < size; ++kx) {
            const Vector<T> value = weight[kx];
#pragma GCC unroll 8
            for (int j = 0; j < kTile; ++j) tile[j] += value * row[j * S + kx];
          }
        }
        if (out_row == first && column == 0) origin[v] = tile[0];
        const int inside = (int)std::min<Index>(kTile, layer.out_width - column);
        T* to = out + column * slice.channels + v * lanes;
        if (inside == kTile) {
#pragma GCC unroll 8
          for (int j = 0; j < kTile; ++j) {
            store(to + j * slice.channels, tile[j], left);
            const Vector<T> moved = tile[j] - origin[v];
            sum += moved;
            square += moved * moved;
          }
        } else {
          for (int j = 0; j < inside; ++j) {
            store(to + j * slice.channels, tile[j], left);
            const Vector<T> moved = tile[j] - origin[v];
            sum += moved;
            square += moved * moved;
          }
        }
      }
      add_to<T>(sums + v * lanes, sum);
      add_to<T>(squares + v * lanes, square);
    }
  }
  const double count = (double)((last - first) * layer.out_width);
  for (int channel = 0; channel < chunk.count; ++channel) {
    const double moved = sums[channel] / count;
    const Index at = slice.first + chunk.first + channel;
    part[at] = moved + (double)origin[channel / lanes][channel % lanes];
    part[layer.channels + at] = squares[channel] - sums[channel] * moved;
  }
}

// What goes backward through one slice. total, product: of the second norm, over the channels of all slices.
template <typename T>
struct Backward {
  const T *x, *d, *gradient;
  Norm<T> norm, d_norm;
  const T *d_total, *d_product;
  T factor;  // 1 / pixels of d, or 0 where statistics are constants
  T* out;
  T* weight_parts;
  double* sum_parts;
};

// A norm's gradient: scale * g + c1 * value + c0.
template <typename T>
struct ThroughNorm {
  Vector<T> c1[kVectors], c0[kVectors];
  ThroughNorm(const Affine<T>& norm, const Channels<T>& total, const Channels<T>& product, T factor) {
    for (int v = 0; v < kVectors; ++v) {
      const Vector<T> scaled = norm.scale[v] * -factor;
      c1[v] = scaled * norm.rstd[v] * product[v];
      c0[v] = scaled * total[v] - c1[v] * norm.mean[v];
    }
  }
};

// Fill a ring's row with the gradient of a row of `d`, its columns S apart.
template <typename T, int S>
void fill_gradient(Vector<T>* row, Index pitch, int padding, Index offset, Index width, Index channels,
                   const Chunk& chunk, const Backward<T>& given, const Affine<T>& norm, const ThroughNorm<T>& through) {
  constexpr int lanes = Simd<T>::lanes;
  const int vectors = (int)divide_up(chunk.count, lanes);
  for (Index column = 0; column < width; ++column) {
    const Index at = offset + column * channels + chunk.first;
    for (int v = 0; v < vectors; ++v) {
      const int left = chunk.count - v * lanes;
      const Vector<T> d = load(given.d + at + v * lanes, left);
      const Vector<T> gradient = load(given.gradient + at + v * lanes, left);
      const Vector<T> active = where_active<T>(d * norm.scale[v] + norm.shift[v], gradient);
      row[v * pitch + padding + column * S] = norm.scale[v] * active + (through.c1[v] * d + through.c0[v]);
    }
  }
}

template <typename T, int K, int S>
void backward(const Layer<T>& layer, const Chunk& chunk, Index image, Index band, Index part, const Backward<T>& given) {
  constexpr int lanes = Simd<T>::lanes;
  const Slice<T>& slice = layer.slices[chunk.slice];
  const int size = K ? K : slice.size, padding = size / 2, taps = size * size;
  const int vectors = (int)divide_up(chunk.count, lanes);
  // Wide enough for the gradient's columns, which lie S apart, and for whole tiles.
  const Index pitch = divide_up(layer.width + 1, kTile) * kTile + 2 * padding;
  const Affine<T> norm(given.norm, layer, chunk), d_norm(given.d_norm, layer, chunk);
  const ThroughNorm<T> through(d_norm, Channels<T>(given.d_total, layer, chunk),
                               Channels<T>(given.d_product, layer, chunk), given.factor);
  Ring<T> activated(size, vectors, pitch), gradients(size, vectors, pitch);
  Scratch<T> weights(vectors * taps), weight_sums(vectors * taps);
  gather_weights(slice, chunk, true, weights.get());
  double sums[kVectors * lanes] = {}, products[kVectors * lanes] = {};
  const Index row_length = layer.width * slice.channels, out_row_length = layer.out_width * slice.channels;
  const Index first = band * kBand, last = std::min(first + kBand, layer.height);
  for (Index y = first; y < last; ++y) {
    for (int k = 0; k < size; ++k) {
      const Index near = y - padding + k;
      const bool is_inside = near >= 0 && near < layer.height;
      if (activated.take(near, is_inside)) {
        fill_activated<T>(activated.row(near), pitch, padding, given.x + (image * layer.height + near) * row_length,
                          layer.width, slice.channels, chunk, norm);
      }
      if (gradients.take(near, is_inside && near % S == 0)) {
        fill_gradient<T, S>(gradients.row(near), pitch, padding,
                            (image * layer.out_height + near / S) * out_row_length, layer.out_width, slice.channels,
                            chunk, given, d_norm, through);
      }
    }
    const Index at = (image * layer.height + y) * row_length + chunk.first;
    for (int v = 0; v < vectors; ++v) {
      const int left = std::min(lanes, chunk.count - v * lanes);
      const Vector<T>* gate = activated.row(y) + v * pitch + padding;
      Vector<T> sum = {}, product = {};
      for (Index column = 0; column < layer.width; column += kTile) {
        Vector<T> tile[kTile] = {};
        for (int ky = 0; ky < size; ++ky) {
          if (gradients.is_zero(y - padding + ky)) continue;
          const Vector<T>* row = gradients.row(y - padding + ky) + v * pitch + column;
          const Vector<T>* weight = weights.get() + v * taps + ky * size;
#pragma GCC unroll 7
          for (int kx = 0; kx < size; ++kx) {
            const Vector<T> value = weight[kx];
#pragma GCC unroll 8
            for (int j = 0; j < kTile; ++j) tile[j] += value * row[j + kx];
          }
        }
        const int inside = (int)std::min<Index>(kTile, layer.width - column);
        for (int j = 0; j < inside; ++j) {
          const Index place = at + (column + j) * slice.channels + v * lanes;
          const Vector<T> active = where_active<T>(gate[column + j], tile[j]);
          store(given.out + place, active, left);
          sum += active;
          product += active * ((load(given.x + place, left) - norm.mean[v]) * norm.rstd[v]);
        }
      }
      add_to<T>(sums + v * lanes, sum);
      add_to<T>(products + v * lanes, product);
    }
    if (gradients.is_zero(y)) continue;
    for (int v = 0; v < vectors; ++v) {
      const Vector<T>* gradient = gradients.row(y) + v * pitch + padding;
      Vector<T>* total = weight_sums.get() + v * taps;
      for (int ky = 0; ky < size; ++ky) {
        if (activated.is_zero(y - padding + ky)) continue;
        const Vector<T>* row = activated.row(y - padding + ky) + v * pitch;
        if constexpr (K != 0) {
          // Two columns at a time: more sums than an addition takes cycles.
          Vector<T> even[K] = {}, odd[K] = {};
          Index column = 0;
          for (; column + 1 < layer.out_width; column += 2) {
            const Vector<T> one = gradient[column * S], other = gradient[(column + 1) * S];
#pragma GCC unroll 7
            for (int kx = 0; kx < K; ++kx) even[kx] += one * row[column * S + kx];
#pragma GCC unroll 7
            for (int kx = 0; kx < K; ++kx) odd[kx] += other * row[(column + 1) * S + kx];
          }
          if (column < layer.out_width) {
            for (int kx = 0; kx < K; ++kx) even[kx] += gradient[column * S] * row[column * S + kx];
          }
          for (int kx = 0; kx < K; ++kx) total[ky * size + kx] += even[kx] + odd[kx];
        } else {
          for (int kx = 0; kx < size; ++kx) {
            Vector<T> tap = {};
            for (Index column = 0; column < layer.out_width; ++column) {
              tap += gradient[column * S] * row[column * S + kx];
            }
            total[ky * size + kx] += tap;
          }
        }
      }
    }
  }
  T* to = given.weight_parts + part * layer.num_weights + slice.offset + chunk.first * taps;
  for (int channel = 0; channel < chunk.count; ++channel) {
    for (int tap = 0; tap < taps; ++tap) {
      to[channel * taps + tap] = weight_sums.get()[(channel / lanes) * taps + tap][channel % lanes];
    }
    const Index own = slice.first + chunk.first + channel;
    given.sum_parts[part * 2 * layer.channels + own] = sums[channel];
    given.sum_parts[(part * 2 + 1) * layer.channels + own] = products[channel];
  }
}

// Call a function template with the kernel's size and the stride as constants.
#define HRNAS_WITH_CONSTANTS(FUNCTION, SIZE, STRIDE, ...)                                       \
  switch ((SIZE) * 2 + (STRIDE) - 1) {                                                          \
    case 6: FUNCTION<T, 3, 1>(__VA_ARGS__); break;                                              \
    case 7: FUNCTION<T, 3, 2>(__VA_ARGS__); break;                                              \
    case 10: FUNCTION<T, 5, 1>(__VA_ARGS__); break;                                             \
    case 11: FUNCTION<T, 5, 2>(__VA_ARGS__); break;                                             \
    case 14: FUNCTION<T, 7, 1>(__VA_ARGS__); break;                                             \
    case 15: FUNCTION<T, 7, 2>(__VA_ARGS__); break;                                             \
    default:                                                                                    \
      if ((STRIDE) == 1) FUNCTION<T, 0, 1>(__VA_ARGS__); else FUNCTION<T, 0, 2>(__VA_ARGS__);    \
  }

// Means and variances of parts that hold `counts` values each, the parts added in their order (Chan et al. 1979).
template <typename T>
void combine_moments(const double* parts, const std::vector<double>& counts, Index channels, double eps, T* mean,
                     T* variance, T* rstd) {
  for (Index channel = 0; channel < channels; ++channel) {
    double total = 0, middle = 0, squares = 0;
    for (std::size_t part = 0; part < counts.size(); ++part) {
      const double moved = parts[part * 2 * channels + channel] - middle;
      const double all = total + counts[part];
      squares += parts[(part * 2 + 1) * channels + channel] + moved * moved * total * counts[part] / all;
      middle += moved * counts[part] / all;
      total = all;
    }
    mean[channel] = (T)middle;
    variance[channel] = (T)(squares / total);
    rstd[channel] = (T)(1 / std::sqrt(squares / total + eps));
  }
}

// The sums of parts, added in their order.
template <typename T, typename From>
void combine_sums(const From* parts, Index num_parts, Index stride, Index count, T* sums) {
  for (Index number = 0; number < count; ++number) {
    double total = 0;
    for (Index part = 0; part < num_parts; ++part) total += (double)parts[part * stride + number];
    sums[number] = (T)total;
  }
}

template <typename T>
void run_forward(const Layer<T>& layer, const T* const* x, const Norm<T>& norm, T* const* d, double eps, T* mean,
                 T* variance, T* rstd) {
  const Index bands = divide_up(layer.out_height, kBand), parts = layer.images * bands;
  std::vector<double> moments(parts * 2 * layer.channels), pixels(parts);
#pragma omp parallel for schedule(dynamic)
  for (Index task = 0; task < (Index)layer.chunks.size() * parts; ++task) {
    const Chunk& chunk = layer.chunks[task / parts];
    const Index part = task % parts;
    HRNAS_WITH_CONSTANTS(forward, layer.slices[chunk.slice].size, layer.stride, layer, chunk, part / bands, part % bands,
                         x[chunk.slice], norm, d[chunk.slice], moments.data() + part * 2 * layer.channels)
  }
  for (Index part = 0; part < parts; ++part) {
    const Index first = part % bands * kBand;
    pixels[part] = (double)((std::min(first + kBand, layer.out_height) - first) * layer.out_width);
  }
  combine_moments(moments.data(), pixels, layer.channels, eps, mean, variance, rstd);
}

template <typename T>
void run_backward(const Layer<T>& layer, const T* const* x, const Norm<T>& norm, const T* const* d,
                  const T* const* gradient, const Norm<T>& d_norm, const T* d_total, const T* d_product,
                  bool is_training, T* const* out, T* weight_gradients, T* total, T* product) {
  const Index bands = divide_up(layer.height, kBand), parts = layer.images * bands;
  const Index out_pixels = layer.images * layer.out_height * layer.out_width;
  std::vector<T> weight_parts(parts * layer.num_weights);
  std::vector<double> sum_parts(parts * 2 * layer.channels);
#pragma omp parallel for schedule(dynamic)
  for (Index task = 0; task < (Index)layer.chunks.size() * parts; ++task) {
    const Chunk& chunk = layer.chunks[task / parts];
    const Index part = task % parts, slice = chunk.slice;
    const Backward<T> given = {x[slice], d[slice], gradient[slice], norm, d_norm, d_total, d_product,
                               is_training ? (T)1 / (T)out_pixels : (T)0, out[slice], weight_parts.data(),
                               sum_parts.data()};
    HRNAS_WITH_CONSTANTS(backward, layer.slices[chunk.slice].size, layer.stride, layer, chunk, part / bands,
                         part % bands, part, given)
  }
  combine_sums(weight_parts.data(), parts, layer.num_weights, layer.num_weights, weight_gradients);
  combine_sums(sum_parts.data(), parts, 2 * layer.channels, layer.channels, total);
  combine_sums(sum_parts.data() + layer.channels, parts, 2 * layer.channels, layer.channels, product);
}

// Slices that are gone through element by element, in parts of their pixels: `body(slice, first pixel, last, part)`.
struct Pixels {
  Index count, step, parts, num_slices, channels = 0;
  std::vector<Index> firsts;

  Pixels(Index pixels, Index num, const Index* widths) : count(pixels), num_slices(num) {
    step = std::max(kPixels, divide_up(divide_up(pixels, kParts), kFlush) * kFlush);
    parts = divide_up(pixels, step);
    for (Index number = 0; number < num; ++number) {
      firsts.push_back(channels);
      channels += widths[number];
    }
  }

  template <typename Body>
  void each(const Body& body) const {
#pragma omp parallel for schedule(static)
    for (Index task = 0; task < num_slices * parts; ++task) {
      const Index part = task % parts;
      body(task / parts, part * step, std::min((part + 1) * step, count), part);
    }
  }
};

template <typename T>
void run_moments(Index pixels, Index num, const Index* widths, const T* const* maps, double eps, T* mean, T* variance,
                 T* rstd) {
  constexpr int lanes = Simd<T>::lanes;
  const Pixels all(pixels, num, widths);
  std::vector<double> moments(all.parts * 2 * all.channels), counts(all.parts);
  all.each([&](Index slice, Index first, Index last, Index part) {
    const Index channels = widths[slice], vectors = divide_up(channels, lanes);
    const T* x = maps[slice];
    Scratch<T> scratch(3 * vectors);
    Vector<T>*origin = scratch.get(), *sum = origin + vectors, *square = sum + vectors;
    std::vector<double> sums(vectors * lanes), squares(vectors * lanes);
    for (Index v = 0; v < vectors; ++v) {
      origin[v] = load(x + first * channels + v * lanes, (int)std::min<Index>(lanes, channels - v * lanes));
    }
    for (Index start = first; start < last; start += kFlush) {
      std::memset(static_cast<void*>(sum), 0, 2 * vectors * 64);
      for (Index pixel = start; pixel < std::min(start + kFlush, last); ++pixel) {
        const T* from = x + pixel * channels;
        for (Index v = 0; v < vectors; ++v) {
          const int left = (int)std::min<Index>(lanes, channels - v * lanes);
          const Vector<T> moved = load(from + v * lanes, left) - origin[v];
          sum[v] += moved;
          square[v] += moved * moved;
        }
      }
      for (Index v = 0; v < vectors; ++v) {
        add_to<T>(sums.data() + v * lanes, sum[v]);
        add_to<T>(squares.data() + v * lanes, square[v]);
      }
    }
    counts[part] = (double)(last - first);
    double* to = moments.data() + part * 2 * all.channels + all.firsts[slice];
    for (Index channel = 0; channel < channels; ++channel) {
      const double moved = sums[channel] / (double)(last - first);
      to[channel] = moved + (double)origin[channel / lanes][channel % lanes];
      to[all.channels + channel] = squares[channel] - sums[channel] * moved;
    }
  });
  combine_moments(moments.data(), counts, all.channels, eps, mean, variance, rstd);
}

// The scale and shift of a slice's norm, (2, vectors).
template <typename T>
void fold(const Norm<T>& norm, Index first, Index channels, Vector<T>* to) {
  constexpr int lanes = Simd<T>::lanes;
  const Index vectors = divide_up(channels, lanes);
  for (Index v = 0; v < vectors; ++v) {
    const Index at = first + v * lanes;
    const int left = (int)std::min<Index>(lanes, channels - v * lanes);
    to[v] = load(norm.weight + at, left) * load(norm.rstd + at, left);
    to[vectors + v] = load(norm.bias + at, left) - load(norm.mean + at, left) * to[v];
  }
}

template <typename T>
void run_activate(Index pixels, Index num, const Index* widths, const T* const* maps, const Norm<T>& norm,
                  T* const* out) {
  constexpr int lanes = Simd<T>::lanes;
  const Pixels all(pixels, num, widths);
  all.each([&](Index slice, Index first, Index last, Index) {
    const Index channels = widths[slice], vectors = divide_up(channels, lanes);
    Scratch<T> scratch(2 * vectors);
    Vector<T>*scale = scratch.get(), *shift = scale + vectors;
    fold(norm, all.firsts[slice], channels, scale);
    for (Index at = first * channels; at < last * channels; at += channels) {
      for (Index v = 0; v < vectors; ++v) {
        const int left = (int)std::min<Index>(lanes, channels - v * lanes);
        store(out[slice] + at + v * lanes, relu<T>(load(maps[slice] + at + v * lanes, left) * scale[v] + shift[v]), left);
      }
    }
  });
}

template <typename T>
void run_activate_backward(Index pixels, Index num, const Index* widths, const T* const* maps,
                           const T* const* gradients, const Norm<T>& norm, T* const* activated, T* total, T* product) {
  constexpr int lanes = Simd<T>::lanes;
  const Pixels all(pixels, num, widths);
  std::vector<double> sum_parts(all.parts * 2 * all.channels);
  all.each([&](Index slice, Index first, Index last, Index part) {
    const Index channels = widths[slice], vectors = divide_up(channels, lanes);
    Scratch<T> scratch(6 * vectors);
    Vector<T>*sums = scratch.get(), *products = sums + vectors, *scale = products + vectors, *shift = scale + vectors;
    Vector<T>*mean = shift + vectors, *rstd = mean + vectors;
    fold(norm, all.firsts[slice], channels, scale);
    for (Index v = 0; v < vectors; ++v) {
      const int left = (int)std::min<Index>(lanes, channels - v * lanes);
      mean[v] = load(norm.mean + all.firsts[slice] + v * lanes, left);
      rstd[v] = load(norm.rstd + all.firsts[slice] + v * lanes, left);
    }
    std::vector<double> totals(2 * vectors * lanes);
    for (Index start = first; start < last; start += kFlush) {
      std::memset(static_cast<void*>(sums), 0, 2 * vectors * 64);
      for (Index pixel = start; pixel < std::min(start + kFlush, last); ++pixel) {
        const Index at = pixel * channels;
        for (Index v = 0; v < vectors; ++v) {
          const int left = (int)std::min<Index>(lanes, channels - v * lanes);
          const Vector<T> value = load(maps[slice] + at + v * lanes, left);
          const Vector<T> before = value * scale[v] + shift[v];
          const Vector<T> active = where_active<T>(before, load(gradients[slice] + at + v * lanes, left));
          store(activated[slice] + at + v * lanes, relu<T>(before), left);
          sums[v] += active;
          products[v] += active * ((value - mean[v]) * rstd[v]);
        }
      }
      for (Index v = 0; v < vectors; ++v) {
        add_to<T>(totals.data() + v * lanes, sums[v]);
        add_to<T>(totals.data() + (vectors + v) * lanes, products[v]);
      }
    }
    double* to = sum_parts.data() + part * 2 * all.channels + all.firsts[slice];
    for (Index channel = 0; channel < channels; ++channel) {
      to[channel] = totals[channel];
      to[all.channels + channel] = totals[vectors * lanes + channel];
    }
  });
  combine_sums(sum_parts.data(), all.parts, 2 * all.channels, all.channels, total);
  combine_sums(sum_parts.data() + all.channels, all.parts, 2 * all.channels, all.channels, product);
}

template <typename T>
void run_norm_backward(Index pixels, Index num, const Index* widths, T* const* gradients, const T* const* maps,
                       const Norm<T>& norm, const T* total, const T* product, bool is_training) {
  constexpr int lanes = Simd<T>::lanes;
  const Pixels all(pixels, num, widths);
  const T factor = is_training ? (T)1 / (T)pixels : (T)0;
  all.each([&](Index slice, Index first, Index last, Index) {
    const Index channels = widths[slice], vectors = divide_up(channels, lanes);
    Scratch<T> scratch(3 * vectors);
    Vector<T>*scale = scratch.get(), *c1 = scale + vectors, *c0 = c1 + vectors;
    for (Index v = 0; v < vectors; ++v) {
      const Index at = all.firsts[slice] + v * lanes;
      const int left = (int)std::min<Index>(lanes, channels - v * lanes);
      const Vector<T> rstd = load(norm.rstd + at, left);
      scale[v] = load(norm.weight + at, left) * rstd;
      c1[v] = scale[v] * -factor * rstd * load(product + at, left);
      c0[v] = scale[v] * -factor * load(total + at, left) - c1[v] * load(norm.mean + at, left);
    }
    for (Index at = first * channels; at < last * channels; at += channels) {
      for (Index v = 0; v < vectors; ++v) {
        const int left = (int)std::min<Index>(lanes, channels - v * lanes);
        T* gradient = gradients[slice] + at + v * lanes;
        store(gradient, scale[v] * load(gradient, left) + (c1[v] * load(maps[slice] + at + v * lanes, left) + c0[v]),
              left);
      }
    }
  });
}

}  // namespace

// shape: images, height, width, stride. maps: one a slice, (pixels, width of the slice), row by row.
#define HRNAS_SLICES(T) const Index *shape, Index num, const Index *widths, const Index *sizes, const T *const *weights
#define HRNAS_MAPS Index pixels, Index num, const Index *widths
#define HRNAS_NORM(T, NAME) const T *NAME##mean, const T *NAME##rstd, const T *NAME##weight, const T *NAME##bias
#define HRNAS_EXPORT(T, TYPE)                                                                                         \
  extern "C" void moments_##TYPE(HRNAS_MAPS, const T* const* x, double eps, T* mean, T* variance, T* rstd) {          \
    run_moments<T>(pixels, num, widths, x, eps, mean, variance, rstd);                                                \
  }                                                                                                                   \
  extern "C" void depthwise_##TYPE(HRNAS_SLICES(T), const T* const* x, HRNAS_NORM(T, ), T* const* d, double eps,      \
                                   T* d_mean, T* d_variance, T* d_rstd) {                                             \
    const Layer<T> layer(shape, num, widths, sizes, weights);                                                         \
    run_forward<T>(layer, x, {mean, rstd, weight, bias}, d, eps, d_mean, d_variance, d_rstd);                         \
  }                                                                                                                   \
  extern "C" void activate_##TYPE(HRNAS_MAPS, const T* const* x, HRNAS_NORM(T, ), T* const* out) {                    \
    run_activate<T>(pixels, num, widths, x, {mean, rstd, weight, bias}, out);                                         \
  }                                                                                                                   \
  extern "C" void activate_backward_##TYPE(HRNAS_MAPS, const T* const* x, const T* const* gradients,                  \
                                           HRNAS_NORM(T, ), T* const* activated, T* total, T* product) {              \
    run_activate_backward<T>(pixels, num, widths, x, gradients, {mean, rstd, weight, bias}, activated, total,         \
                             product);                                                                                \
  }                                                                                                                   \
  extern "C" void depthwise_backward_##TYPE(HRNAS_SLICES(T), const T* const* x, HRNAS_NORM(T, ), const T* const* d,   \
                                            const T* const* gradients, HRNAS_NORM(T, d_), const T* d_total,           \
                                            const T* d_product, Index is_training, T* const* out,                     \
                                            T* weight_gradients, T* total, T* product) {                              \
    const Layer<T> layer(shape, num, widths, sizes, weights);                                                         \
    run_backward<T>(layer, x, {mean, rstd, weight, bias}, d, gradients, {d_mean, d_rstd, d_weight, d_bias}, d_total,  \
                    d_product, is_training != 0, out, weight_gradients, total, product);                              \
  }                                                                                                                   \
  extern "C" void norm_backward_##TYPE(HRNAS_MAPS, T* const* gradients, const T* const* x, HRNAS_NORM(T, ),           \
                                       const T* total, const T* product, Index is_training) {                         \
    run_norm_backward<T>(pixels, num, widths, gradients, x, {mean, rstd, weight, bias}, total, product,               \
                         is_training != 0);                                                                           \
  }

HRNAS_EXPORT(float, float32)
HRNAS_EXPORT(double, float64)

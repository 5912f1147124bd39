// What the kernels that convolve along an axis are given.
#pragma once

#include "cuda/read.h"
#include "cuda/window_sums.h"
#include "formulas.h"

namespace flc::cuda {

constexpr int LINES = WARP;  // that are convolved side by side: one in each lane

// Strides of a tensor, seen along an axis.
struct View {
  int64_t image, along, across;
};

template <class T>
struct ConvolveArguments {
  flc_tensor input;
  View from;
  T* out;  // contiguous
  View to;
  T* strip_sums;  // of windows that are too long for a table, see convolve_strips.h
  int64_t images;
  int size, lines;  // of the axis, and of the other one
  int tiles, tiles_across;
  int padding;
  bool along_rows;
  Windows<T> windows;
  T edge_weight;         // of each edge's value, for what lies further out than the windows' radius
  int whole;             // strips next to a strip that all of its windows show, and the values beyond
  int rest;              // these, that all of them show
  double strip_decay;    // over a strip
  T rest_decay;          // to the nearest of the rest
};

}  // namespace flc::cuda

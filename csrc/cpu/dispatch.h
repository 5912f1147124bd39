// Which instruction set's kernels serve this CPU.
#pragma once

#include "cpu/plan.h"

namespace flc {

const Kernels& kernels();

}  // namespace flc

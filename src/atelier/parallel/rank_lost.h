#pragma once

#include "atelier/core/error.h"

namespace atelier::parallel {

/// Another rank is gone or silent: exit code 75. The same command goes on from the last checkpoint.
class RankLost : public core::Error {
public:
    using core::Error::Error;
};

}  // namespace atelier::parallel

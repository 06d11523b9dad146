#include "atelier/atelier.h"

namespace atelier {

Error::Error(Kind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}

Error::~Error() = default;

const char* version() noexcept { return ATELIER_VERSION; }

}  // namespace atelier

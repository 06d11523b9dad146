# Generates evidence_file.cpp: docs/choosing-k.json as text, for planning/evidence_file.h.
set(source ${PROJECT_SOURCE_DIR}/docs/choosing-k.json)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
file(READ ${source} embedded)
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/evidence_file.cpp CONTENT [[#include "atelier/planning/evidence_file.h"

namespace atelier::planning {

std::string_view evidence_file() {
    return R"evidence(@embedded@)evidence";
}

}  // namespace atelier::planning
]] @ONLY)

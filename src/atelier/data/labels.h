#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace atelier::data {

/// The number of classes: the largest label + 1, or 0 when there are no labels. Throws core::Error,
/// beginning with `where`, naming the row of a negative label, or the first class below the largest
/// that has no sample.
std::int64_t count_classes(std::span<const std::int64_t> labels, const std::string& where);

/// The same where classes may have no sample. Throws core::Error naming the row of a negative
/// label, or of one beyond a million classes.
std::int64_t count_classes_with_gaps(std::span<const std::int64_t> labels,
                                     const std::string& where);

/// Throws core::Error, beginning with `where`, naming the first row whose label is not from 0 to
/// classes-1.
void check_labels(std::span<const std::int64_t> labels, std::int64_t classes,
                  const std::string& where);

}  // namespace atelier::data

#pragma once

#include <fmt/format.h>

#include "atelier/server/http.h"

/// Errors that are reported in several places.
namespace atelier::server {

inline HttpError with_retry_after(HttpError error, int seconds = 1) {
    error.retry_after = seconds;
    return error;
}

inline HttpError draining() {
    return with_retry_after(HttpError(503, "the server is stopping; retry later", "", "draining"));
}

inline HttpError too_many_connections() {
    return with_retry_after(HttpError(503,
                                      "the server answers as many connections as it may "
                                      "(--max-connections); retry later",
                                      "", "too_many_connections"));
}

/// No worker behind the router has the student.
inline HttpError student_unavailable(std::int64_t student) {
    return with_retry_after(
        HttpError(503, fmt::format("no worker has student {} at the moment; retry later", student),
                  "", "student_unavailable"));
}

inline HttpError queue_full(std::int64_t student, int seconds) {
    return with_retry_after(
        HttpError(429, fmt::format("the queue of student {} is full; retry later", student), "",
                  "queue_full"),
        seconds);
}

/// Too many requests wait for prompt encoding.
inline HttpError encoder_busy() {
    return with_retry_after(HttpError(
        429, "too many prompts are waiting to be encoded; retry later", "", "queue_full"));
}

/// A worker's response was not the images that the router requested.
inline HttpError bad_upstream() {
    return HttpError(502, "a worker behind this router sent an invalid response", "",
                     "bad_upstream");
}

inline HttpError deadline_exceeded() {
    return HttpError(504, "the image was not ready within the server's deadline", "",
                     "deadline_exceeded");
}

}  // namespace atelier::server

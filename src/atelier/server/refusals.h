#pragma once

#include <fmt/format.h>

#include "atelier/server/http.h"

/// What is said in the same words wherever it happens.
namespace atelier::server {

inline Refusal asked_again(Refusal refusal, int seconds = 1) {
    refusal.retry_after = seconds;
    return refusal;
}

inline Refusal draining() { return asked_again(Refusal(503, "the server is being stopped; ask again", "", "draining")); }

/// A router has nobody who draws for the student.
inline Refusal student_unavailable(std::int64_t student) {
    return asked_again(Refusal(503, fmt::format("nobody draws for student {} at the moment; ask again", student), "", "student_unavailable"));
}

inline Refusal queue_full(std::int64_t student, int seconds) {
    return asked_again(Refusal(429, fmt::format("too much waits for student {}; ask again later", student), "", "queue_full"), seconds);
}

/// Of a model that reads prompts.
inline Refusal readers_busy() { return asked_again(Refusal(429, "too many prompts wait to be read; ask again later", "", "queue_full")); }

/// A router was answered with something else than the pictures that it asked for.
inline Refusal bad_upstream() {
    return Refusal(502, "a server behind this one answered with something that is no picture", "",
                   "bad_upstream");
}

inline Refusal deadline_exceeded() { return Refusal(504, "the picture was not ready within the server's deadline", "", "deadline_exceeded"); }

}  // namespace atelier::server

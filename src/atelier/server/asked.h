#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "atelier/server/http.h"
#include "atelier/server/image_request.h"
#include "atelier/server/library.h"

namespace atelier::server {

/// What a request for pictures asks for, and how it is answered: an image API's, or a router's, who takes pixels.
class Asked {
public:
    virtual ~Asked() = default;
    virtual const std::string& model() const = 0;
    /// Throws Refusal for what can be told before prompts are read.
    virtual void check_before_reading(const Description& model) const = 0;
    virtual std::vector<std::string> prompts() const = 0;
    /// Throws Refusal. `readings`: one of each of `prompts`, where the model reads them.
    virtual Plan plan(const Served& served, std::span<const Reading> readings) const = 0;
    /// With type and body, no more.
    virtual Response answer(const Plan& plan, const Description& model, std::span<const Picture> pictures) const = 0;
};

/// Reads a request, of at most `most_pictures`. Throws Refusal with status 400 as the readers of its body do.
std::shared_ptr<const Asked> asked_by(const Request& request, std::int64_t most_pictures);

}  // namespace atelier::server

#include "atelier/core/pickle.h"

#include <bit>
#include <cstring>

#include "atelier/core/error.h"

namespace atelier::core {

namespace {

constexpr std::size_t max_values = 1'000'000;

}  // namespace

/// The pickle virtual machine, without side effects.
class PickleReader {
public:
    PickleReader(Pickle& pickle, std::span<const std::byte> bytes, Pickle::Allowed allowed)
        : pickle_(pickle), bytes_(bytes), allowed_(allowed) {}

    void run() {
        pickle_.values_.emplace_back();
        while (!stopped_) step(static_cast<unsigned char>(take(1)[0]));
        pickle_.root_ = pop();
        pickle_.size_ = position_;
    }

private:
    using Kind = Pickle::Kind;
    using Value = Pickle::Value;
    using Id = std::uint32_t;

    [[noreturn]] void broken(const std::string& what) const {
        fail("{}: is a broken pickle: {} at byte {}", pickle_.where_, what, position_);
    }

    std::string_view take(std::uint64_t count) {
        if (count > bytes_.size() - position_) broken("it ends too early");
        const std::string_view taken(reinterpret_cast<const char*>(bytes_.data()) + position_,
                                     static_cast<std::size_t>(count));
        position_ += static_cast<std::size_t>(count);
        return taken;
    }

    template <class Number>
    Number number() {
        Number value;
        std::memcpy(&value, take(sizeof value).data(), sizeof value);
        return value;
    }

    std::string_view line() {
        const std::string_view rest(reinterpret_cast<const char*>(bytes_.data()) + position_,
                                    bytes_.size() - position_);
        const std::size_t end = rest.find('\n');
        if (end == rest.npos) broken("a line does not end");
        take(end + 1);
        return rest.substr(0, end);
    }

    Id make(Value value) {
        if (pickle_.values_.size() >= max_values)
            fail("{}: holds more than {} values; no checkpoint does", pickle_.where_, max_values);
        pickle_.values_.push_back(std::move(value));
        return static_cast<Id>(pickle_.values_.size() - 1);
    }

    void push(Value value) { stack_.push_back(make(std::move(value))); }
    void push_text(std::uint64_t length) { push({.kind = Kind::text, .text = take(length)}); }
    void push_bytes(std::uint64_t length) { push({.kind = Kind::bytes, .text = take(length)}); }
    void push_integer(std::int64_t value) { push({.kind = Kind::integer, .integer = value}); }

    /// Little-endian two's complement. Integers longer than 64 bits (torch's magic number) are kept
    /// as bytes.
    void push_long(std::uint64_t length) {
        const std::string_view digits = take(length);
        if (length > 8) return push({.kind = Kind::bytes, .text = digits});
        std::uint64_t value =
            !digits.empty() && (digits.back() & 0x80) != 0 ? ~std::uint64_t{0} : 0;
        std::memcpy(&value, digits.data(), digits.size());
        push_integer(static_cast<std::int64_t>(value));
    }

    void push_real() {
        std::uint64_t bits = 0;
        for (const char byte : take(8)) bits = bits << 8 | static_cast<unsigned char>(byte);
        push({.kind = Kind::real, .real = std::bit_cast<double>(bits)});
    }

    void push_global(std::string_view module, std::string_view name) {
        const std::string& global = pickle_.globals_.emplace_back(
            std::string(module.substr(0, 200)) + "." + std::string(name.substr(0, 200)));
        if (!allowed_(global)) {
            fail(
                "{}: asks for \"{}\", which no checkpoint needs; nothing was run, and the file "
                "should not be trusted",
                pickle_.where_, global);
        }
        push({.kind = Kind::global, .text = global});
    }

    void push_call(Id callee, Id arguments) {
        push({.kind = Kind::call, .callee = callee, .arguments = arguments});
    }

    void push_persistent_id() {
        const Id arguments = pop();
        push({.kind = Kind::global, .text = "persistent_id"});
        push_call(pop(), arguments);
    }

    Id pop() {
        if (stack_.size() <= (marks_.empty() ? 0 : marks_.back()))
            broken("something is taken from an empty stack");
        const Id id = stack_.back();
        stack_.pop_back();
        return id;
    }

    Value& top() {
        if (stack_.empty()) broken("something is taken from an empty stack");
        return pickle_.values_[stack_.back()];
    }

    std::vector<Id> since_mark() {
        if (marks_.empty()) broken("a mark is missing");
        const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
        std::vector<Id> items(first, stack_.end());
        stack_.erase(first, stack_.end());
        marks_.pop_back();
        return items;
    }

    std::vector<Id> last(std::size_t count) {
        std::vector<Id> items(count);
        for (std::size_t i = count; i-- > 0;) items[i] = pop();
        return items;
    }

    /// Adds `items` to the list or dict, or to the object filled like one, on top of the stack.
    void fill(const std::vector<Id>& items, bool pairs) {
        if (pairs && items.size() % 2 != 0) broken("a key has no value");
        Value& container = top();
        if (container.kind != Kind::call && container.kind != (pairs ? Kind::dict : Kind::list))
            broken("something is added to a value that is not a container");
        container.items.insert(container.items.end(), items.begin(), items.end());
    }

    void build() {
        const Id state = pop();
        Value& object = top();
        if (object.kind != Kind::call) broken("a state is set on a value that is not an object");
        object.state = state;
    }

    void memoize(std::uint32_t index) {
        top();
        memo_[index] = stack_.back();
    }

    void repeat() {
        top();
        stack_.push_back(stack_.back());
    }

    void recall(std::uint32_t index) {
        const auto found = memo_.find(index);
        if (found == memo_.end()) broken("it refers to what it never held");
        stack_.push_back(found->second);
    }

    void call_on_stack() {
        const Id arguments = pop();
        push_call(pop(), arguments);
    }

    void stack_global() {
        const auto names = last(2);
        for (const Id id : names) {
            if (pickle_.values_[id].kind != Kind::text) broken("a global has no name");
        }
        push_global(pickle_.values_[names[0]].text, pickle_.values_[names[1]].text);
    }

    void step(unsigned char instruction) {
        if (!scalar(instruction) && !structure(instruction))
            broken(fmt::format("instruction 0x{:02x} is unknown", instruction));
    }

    bool scalar(unsigned char instruction) {
        switch (instruction) {
            case 'N':
                push({});
                break;
            case 0x88:
                push({.kind = Kind::boolean, .integer = 1});
                break;
            case 0x89:
                push({.kind = Kind::boolean});
                break;
            case 'J':
                push_integer(number<std::int32_t>());
                break;
            case 'K':
                push_integer(number<std::uint8_t>());
                break;
            case 'M':
                push_integer(number<std::uint16_t>());
                break;
            case 0x8a:
                push_long(number<std::uint8_t>());
                break;
            case 0x8b:
                push_long(number<std::uint32_t>());
                break;
            case 'G':
                push_real();
                break;
            case 'X':
                push_text(number<std::uint32_t>());
                break;
            case 0x8c:
                push_text(number<std::uint8_t>());
                break;
            case 0x8d:
                push_text(number<std::uint64_t>());
                break;
            case 'U':
                push_text(number<std::uint8_t>());
                break;  // Python 2's
            case 'T':
                push_text(number<std::uint32_t>());
                break;  // Python 2's
            case 'B':
                push_bytes(number<std::uint32_t>());
                break;
            case 'C':
                push_bytes(number<std::uint8_t>());
                break;
            case 0x8e:
            case 0x96:
                push_bytes(number<std::uint64_t>());
                break;
            default:
                return false;
        }
        return true;
    }

    bool structure(unsigned char instruction) {
        switch (instruction) {
            case 0x80:
                take(1);
                break;  // the protocol
            case 0x95:
                take(8);
                break;  // a frame's length
            case '.':
                stopped_ = true;
                break;
            case '(':
                marks_.push_back(stack_.size());
                break;
            case '0':
                pop();
                break;
            case '1':
                since_mark();
                break;
            case '2':
                repeat();
                break;
            case ']':
            case 0x8f:
            case ')':
                push({.kind = Kind::list});
                break;
            case '}':
                push({.kind = Kind::dict});
                break;
            case 'a':
                fill(last(1), false);
                break;
            case 's':
                fill(last(2), true);
                break;
            case 'e':
            case 0x90:
                fill(since_mark(), false);
                break;
            case 'u':
                fill(since_mark(), true);
                break;
            case 'l':
            case 't':
            case 0x91:
                push({.kind = Kind::list, .items = since_mark()});
                break;
            case 0x85:
                push({.kind = Kind::list, .items = last(1)});
                break;
            case 0x86:
                push({.kind = Kind::list, .items = last(2)});
                break;
            case 0x87:
                push({.kind = Kind::list, .items = last(3)});
                break;
            case 'c': {
                const std::string_view module = line();
                push_global(module, line());
                break;
            }
            case 0x93:
                stack_global();
                break;
            case 'R':
            case 0x81:
                call_on_stack();
                break;
            case 'b':
                build();
                break;
            case 'Q':
                push_persistent_id();
                break;
            case 'h':
                recall(number<std::uint8_t>());
                break;
            case 'j':
                recall(number<std::uint32_t>());
                break;
            case 'q':
                memoize(number<std::uint8_t>());
                break;
            case 'r':
                memoize(number<std::uint32_t>());
                break;
            case 0x94:
                memoize(static_cast<std::uint32_t>(memo_.size()));
                break;
            default:
                return false;
        }
        return true;
    }

    Pickle& pickle_;
    std::span<const std::byte> bytes_;
    Pickle::Allowed allowed_;
    std::size_t position_ = 0;
    std::vector<Id> stack_;
    std::vector<std::size_t> marks_;
    std::unordered_map<std::uint32_t, Id> memo_;
    bool stopped_ = false;
};

Pickle::Pickle(std::span<const std::byte> bytes, std::string where, Allowed allowed)
    : where_(std::move(where)) {
    PickleReader(*this, bytes, allowed).run();
}

PickleValue Pickle::root() const { return {*this, root_}; }

std::vector<PickleValue> Pickle::calls(std::string_view global) const {
    std::vector<PickleValue> found;
    for (std::uint32_t id = 0; id < values_.size(); ++id) {
        const PickleValue value(*this, id);
        if (value.is_call(global)) found.push_back(value);
    }
    return found;
}

const Pickle::Value& PickleValue::expect(Pickle::Kind kind, const char* what) const {
    if (value().kind != kind)
        fail("{}: there is no {} where a checkpoint has one", pickle_->where_, what);
    return value();
}

bool PickleValue::is_number() const {
    const Pickle::Kind kind = value().kind;
    return kind == Pickle::Kind::boolean || kind == Pickle::Kind::integer ||
           kind == Pickle::Kind::real;
}

bool PickleValue::is_call(std::string_view global) const {
    return is_call() && callee().is_global() && callee().text() == global;
}

std::int64_t PickleValue::integer() const {
    return expect(Pickle::Kind::integer, "whole number").integer;
}

double PickleValue::real() const {
    if (!is_number()) expect(Pickle::Kind::real, "number");
    return value().kind == Pickle::Kind::real ? value().real : static_cast<double>(value().integer);
}

std::string_view PickleValue::text() const {
    return is_global() ? value().text : expect(Pickle::Kind::text, "text").text;
}

std::span<const std::byte> PickleValue::bytes() const {
    return std::as_bytes(std::span(expect(Pickle::Kind::bytes, "bytes").text));
}

std::vector<PickleValue> PickleValue::items() const {
    std::vector<PickleValue> items;
    for (const std::uint32_t id : expect(Pickle::Kind::list, "list").items) items.push_back(at(id));
    return items;
}

std::vector<std::pair<PickleValue, PickleValue>> PickleValue::entries() const {
    if (!is_call()) expect(Pickle::Kind::dict, "dictionary");
    std::vector<std::pair<PickleValue, PickleValue>> entries;
    const auto& items = value().items;
    for (std::size_t i = 0; i + 1 < items.size(); i += 2)
        entries.emplace_back(at(items[i]), at(items[i + 1]));
    return entries;
}

PickleValue PickleValue::callee() const { return at(expect(Pickle::Kind::call, "object").callee); }

std::vector<PickleValue> PickleValue::arguments() const {
    return at(expect(Pickle::Kind::call, "object").arguments).items();
}

PickleValue PickleValue::state() const { return at(expect(Pickle::Kind::call, "object").state); }

PickleValue PickleValue::operator[](std::string_view key) const {
    PickleValue found = at(0);
    for (const auto& [name, entry] : entries()) {
        if (name.is_text() && name.text() == key)
            found = entry;  // the last one counts, as in Python
    }
    return found;
}

}  // namespace atelier::core

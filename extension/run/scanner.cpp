// See scanner.hpp. The last piece of a part is cut when its end is seen: until then it is the tail, which
// nobody can claim.
#include "run/scanner.hpp"

#include "bridge/codes.hpp"

namespace portage::run {
namespace {

constexpr int64_t piece_items = 10000;
constexpr uint64_t piece_bytes = 8 << 20;

}  // namespace

Scanner::Scanner(const ledger::Run& run, const Options& options, const Plan& plan, Oid role)
    : run_(run), options_(options), plan_(plan), role_(role), parts_(ledger::parts_of(run.id)) {}

void Scanner::forget() {
  open_.reset();
  at_ = 0;
  next_ordinal_ = 1;
}

bool Scanner::cut() {
  while (!open_) {
    if (at_ == parts_.size() || (options_.limit && next_ordinal_ > *options_.limit)) return false;
    std::optional<ledger::Range> last = ledger::last_range(run_.id, parts_[at_].number);
    if (last && last->end_ordinal) {
      next_ordinal_ = *last->end_ordinal;
      at_++;
    } else if (!last && pass_over(run_, options_, parts_[at_])) {
      at_++;
    } else {
      if (!last) ledger::open_tail(run_.id, parts_[at_].number, next_ordinal_);
      open(parts_[at_]);
    }
  }
  int64_t most = options_.batch_size ? std::min(options_.batch_size * 10, piece_items) : piece_items;
  if (options_.limit) most = std::min(most, *options_.limit - tail_.first_ordinal + 1);
  int64_t items = 0;
  uint64_t bytes = 0;
  bool at_end = false;
  {
    bridge::AsUser as(role_);
    open_->check_unchanged();
    formats::Arena arena;
    formats::Record record;
    while (!at_end && items < most && bytes < piece_bytes) {
      if ((items & 1023) == 0) bridge::check_interrupts();
      arena.reset();
      at_end = !open_->reader().next(arena, record);
      if (at_end) break;
      items++;
      bytes += record.length;
    }
  }
  int64_t end = tail_.first_ordinal + items;
  bool full = options_.limit && end > *options_.limit;
  formats::Checkpoint at = open_->reader().checkpoint();
  ledger::cut_tail(run_.id, tail_, end, at, !at_end && !full);
  if (at_end)
    if (std::optional<std::string> digest = open_->digest())
      ledger::set_part_sha256(run_.id, parts_[at_].number, *digest);
  if (at_end || full) {
    next_ordinal_ = end;
    at_++;
    open_.reset();
  } else {
    tail_.number++;
    tail_.first_ordinal = end;
  }
  return true;
}

/// At the begin of the tail.
void Scanner::open(const ledger::Part& part) {
  tail_ = *ledger::last_range(run_.id, part.number);
  bridge::AsUser as(role_);
  open_ = open_items(run_, part, plan_, options_, tail_.checkpoint.offset > 0 ? &tail_ : nullptr, true);
}

bool pass_over(const ledger::Run& run, const Options& options, const ledger::Part& part) {
  if (part.skipped) return true;
  if (!options.max_part_bytes || part.byte_length.value_or(0) <= *options.max_part_bytes) return false;
  std::string reason = bridge::format("%lld bytes are more than max_part_bytes (%lld)",
                                      static_cast<long long>(part.byte_length.value_or(0)),
                                      static_cast<long long>(*options.max_part_bytes));
  if (!options.skip_large_parts)
    throw bridge::Error(codes::payload_too_large, "part \"" + part.name + "\" is too large")
        .detail("Its " + reason + ".")
        .hint("Raise max_part_bytes, or set skip_large_parts.");
  ledger::set_part_skipped(run.id, part.number, reason);
  ledger::add_event(run.id, "error_added",
                    "{\"part\": " + std::to_string(part.number) + ", \"skipped\": \"" + reason + "\"}");
  return true;
}

}  // namespace portage::run

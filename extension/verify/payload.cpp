// payload: what was submitted is what is stored, chunk by chunk.
#include "ledger/as_ledger.hpp"
#include "ledger/parts.hpp"
#include "ledger/retention.hpp"
#include "run/options.hpp"
#include "verify/check.hpp"

namespace portage::verify {
namespace {

using bridge::param;
using bridge::Result;

/// Dropped on purpose: at the run's end, as its options say, or by retention.
bool may_be_dropped(const ledger::Run& run) {
  return !run::parse_options(run.options).keep_payload || ledger::cleaned_up(run.id);
}

class PayloadCheck {
 public:
  explicit PayloadCheck(const Scene& scene) : scene_(scene) {}

  Check work() {
    std::vector<ledger::Part> parts;
    bool any = false;
    for (ledger::Part& part : ledger::parts_of(scene_.run.id)) {
      if (part.kind != "payload") continue;
      any = any || ledger::next_chunk(scene_.run.id, part.number) > 1;
      parts.push_back(std::move(part));
    }
    if (!any && may_be_dropped(scene_.run)) {
      Check check = findings_.none("payload");
      check.details = parts.empty() ? "{\"found\": []}" : "{\"found\": [], \"dropped\": true}";
      return check;
    }
    for (const ledger::Part& part : parts) look_at(part);
    return findings_.none("payload");
  }

 private:
  void look_at(const ledger::Part& part) {
    std::string name = "part " + std::to_string(part.number);
    int32_t expected = 1;
    int64_t bytes = 0;
    bool gap = false;
    for (bool more = true; more;) {
      {
        ledger::AsLedger as;
        ByPage by_page;
        static const bridge::Statement select(
            "SELECT chunk_no, octet_length(content)::bigint, sha256 = pg_catalog.sha256(content) FROM "
            "portage.migration_payloads WHERE run_id = $1 AND part = $2 AND chunk_no >= $3 ORDER BY chunk_no "
            "LIMIT 16");
        Result rows = select.run(scene_.run.id, part.number, expected);
        for (size_t i = 0; i < rows.size(); i++) {
          int32_t number = rows.integer(i, 1);
          for (; expected < number; expected++, gap = true) missing(name, expected);
          expected = number + 1;
          bytes += rows.bigint(i, 2);
          if (!rows.boolean(i, 3)) findings_.add(name + ", chunk " + std::to_string(number));
        }
        more = rows.size() == 16;
      }
      scene_.page_end();
    }
    if (expected == 1 && part.byte_length.value_or(1) > 0)
      findings_.add(name + ": its chunks are missing");
    else if (!gap && part.byte_length && bytes != *part.byte_length)
      findings_.add(name + ": " + std::to_string(bytes) + " bytes are there, " +
                    std::to_string(*part.byte_length) + " were submitted");
  }

  void missing(const std::string& name, int32_t chunk) {
    findings_.add(name + ", chunk " + std::to_string(chunk) + ": is missing");
  }

  const Scene& scene_;
  Findings findings_;
};

}  // namespace

Check check_payload(const Scene& scene) { return PayloadCheck(scene).work(); }

}  // namespace portage::verify

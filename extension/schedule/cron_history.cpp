// See cron_history.hpp.
#include "schedule/cron_history.hpp"

#include "bridge/scope.hpp"
#include "bridge/subxact.hpp"
#include "settings.hpp"

namespace portage::schedule {

void trim_cron_history() {
  using Clock = std::chrono::steady_clock;
  static Clock::time_point next;
  if (settings::cron_history < 0 || Clock::now() < next) return;
  next = Clock::now() + std::chrono::minutes(1);
  // Its tables by their extension: anybody could have made others of that name, with triggers.
  bridge::Settings plain_path;
  plain_path.set("search_path", "pg_catalog, pg_temp");
  bridge::Result tables = bridge::execute(
      "SELECT c.oid::regclass::text FROM pg_extension e JOIN pg_depend d ON d.refclassid = "
      "'pg_extension'::regclass AND d.refobjid = e.oid AND d.classid = 'pg_class'::regclass AND d.deptype = "
      "'e' "
      "JOIN pg_class c ON c.oid = d.objid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE e.extname = "
      "'pg_cron' AND c.relname IN ('job', 'job_run_details') AND has_schema_privilege(n.oid, 'USAGE') AND "
      "has_table_privilege(c.oid, CASE c.relname WHEN 'job' THEN 'SELECT' ELSE 'DELETE' END) ORDER BY "
      "c.relname");
  if (tables.size() != 2) return;
  std::string sql =
      "DELETE FROM " + tables.text(1, 1) + " d USING " + tables.text(0, 1) +
      " j WHERE d.jobid = j.jobid AND j.command ~* '^\\s*call\\s+portage\\.tick\\(\\)\\s*;?\\s*$' AND "
      "d.end_time < now() - make_interval(days => $1)";
  std::optional<bridge::Error> error =
      bridge::attempt([&] { bridge::execute(sql, {bridge::param(int32_t{settings::cron_history})}); });
  if (error && bridge::is_interrupt(error->code())) throw *error;
}

}  // namespace portage::schedule

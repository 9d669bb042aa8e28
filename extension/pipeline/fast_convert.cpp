// See fast_convert.hpp.
#include "pipeline/fast_convert.hpp"

extern "C" {
#include "datatype/timestamp.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/numeric.h"
#include "utils/uuid.h"
}

namespace portage {
namespace {

bool digit(char c) { return c >= '0' && c <= '9'; }

/// Optional minus, then 1 to 18 digits: what cannot overflow int64.
bool parse_integer(const char* text, size_t size, int64* value) {
  bool negative = size > 0 && text[0] == '-';
  size_t i = negative;
  if (size - i == 0 || size - i > 18) return false;
  int64 n = 0;
  for (; i < size; i++) {
    if (!digit(text[i])) return false;
    n = n * 10 + (text[i] - '0');
  }
  *value = negative ? -n : n;
  return true;
}

template <class Float>
bool parse_float(const char* text, size_t size, Float* value) {
  // Only what begins like a number: from_chars also reads "inf" and "nan", which the input function spells
  // its way.
  if (size == 0 || !(digit(text[0]) || (text[0] == '-' && size > 1 && digit(text[1])))) return false;
  auto [end, error] = std::from_chars(text, text + size, *value);
  return error == std::errc() && end == text + size;
}

/// Optional minus, digits, at most one point between them: up to 15 digits, so that nothing overflows.
bool parse_numeric(const char* text, size_t size, Datum* value) {
  bool negative = size > 0 && text[0] == '-';
  size_t i = negative, digits = 0, point = size;
  int64 n = 0;
  for (; i < size; i++) {
    if (text[i] == '.' && point == size && digits > 0) {
      point = i;
    } else if (digit(text[i]) && digits++ < 15) {
      n = n * 10 + (text[i] - '0');
    } else {
      return false;
    }
  }
  if (digits == 0 || point == size - 1) return false;
  int scale = point == size ? 0 : static_cast<int>(size - point - 1);
  *value = NumericGetDatum(int64_div_fast_to_numeric(negative ? -n : n, scale));
  return true;
}

Datum text_of(const char* text, size_t size) {
  return PointerGetDatum(cstring_to_text_with_len(text, static_cast<int>(size)));
}

int two_digits(const char* text) { return (text[0] - '0') * 10 + (text[1] - '0'); }

bool are_digits(const char* text, int count) {
  for (int i = 0; i < count; i++)
    if (!digit(text[i])) return false;
  return true;
}

/// Days since 2000-01-01 of `YYYY-MM-DD`, for real days of the years 1 to 9999.
bool parse_day(const char* text, int* days) {
  if (!are_digits(text, 4) || text[4] != '-' || !are_digits(text + 5, 2) || text[7] != '-' ||
      !are_digits(text + 8, 2))
    return false;
  int year = two_digits(text) * 100 + two_digits(text + 2), month = two_digits(text + 5),
      day = two_digits(text + 8);
  if (year < 1 || month < 1 || month > 12 || day < 1) return false;
  if (day > 28 && day > day_tab[isleap(year)][month - 1]) return false;
  *days = date2j(year, month, day) - POSTGRES_EPOCH_JDATE;
  return true;
}

/// `YYYY-MM-DD{T| }HH:MM:SS[.f{1,6}][Z|{+|-}HH[:MM]]`. `zone`: 0 none, 1 given; `offset` in seconds east.
bool parse_timestamp(const char* text, size_t size, Timestamp* result, bool* zone, int* offset) {
  int days;
  if (size < 19 || size > 32 || !parse_day(text, &days) || (text[10] != 'T' && text[10] != ' ')) return false;
  const char* time = text + 11;
  if (!are_digits(time, 2) || time[2] != ':' || !are_digits(time + 3, 2) || time[5] != ':' ||
      !are_digits(time + 6, 2))
    return false;
  int hour = two_digits(time), minute = two_digits(time + 3), second = two_digits(time + 6);
  if (hour > 23 || minute > 59 || second > 59) return false;
  const char* at = text + 19;
  const char* end = text + size;
  int64 fraction = 0;
  if (at < end && *at == '.') {
    at++;
    int digits = 0;
    for (; at < end && digit(*at); at++, digits++) fraction = fraction * 10 + (*at - '0');
    if (digits < 1 || digits > 6) return false;  // more are rounded: the input function's business
    for (; digits < 6; digits++) fraction *= 10;
  }
  *zone = at < end;
  *offset = 0;
  if (at < end && *at == 'Z') {
    at++;
  } else if (at < end && (*at == '+' || *at == '-')) {
    int sign = *at == '-' ? -1 : 1;
    at++;
    if (end - at != 2 && end - at != 5) return false;
    if (!are_digits(at, 2)) return false;
    int hours = two_digits(at), minutes = 0;
    if (end - at == 5) {
      if (at[2] != ':' || !are_digits(at + 3, 2)) return false;
      minutes = two_digits(at + 3);
    }
    if (hours > 14 || minutes > 59) return false;
    *offset = sign * (hours * 3600 + minutes * 60);
    at = end;
  }
  if (at != end) return false;
  *result = days * USECS_PER_DAY + ((hour * 60 + minute) * 60 + second) * USECS_PER_SEC + fraction;
  return true;
}

int hex(char c) {
  if (digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool parse_uuid(const char* text, size_t size, Datum* value) {
  if (size != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-') return false;
  auto* uuid = static_cast<pg_uuid_t*>(palloc(sizeof(pg_uuid_t)));
  const char* at = text;
  for (int i = 0; i < UUID_LEN; i++) {
    if (*at == '-') at++;
    int high = hex(at[0]), low = hex(at[1]);
    if (high < 0 || low < 0) {
      pfree(uuid);
      return false;
    }
    uuid->data[i] = static_cast<unsigned char>(high << 4 | low);
    at += 2;
  }
  *value = UUIDPGetDatum(uuid);
  return true;
}

bool is(const char* text, size_t size, std::string_view word) { return std::string_view(text, size) == word; }

}  // namespace

bool fast_convert_raw(ConvertKind kind, int32 typmod, const char* text, size_t size, Datum* value) {
  switch (kind) {
    case ConvertKind::boolean:
      if (is(text, size, "true"))
        *value = BoolGetDatum(true);
      else if (is(text, size, "false"))
        *value = BoolGetDatum(false);
      else
        return false;
      return true;
    case ConvertKind::int2: {
      int64 n;
      if (!parse_integer(text, size, &n) || n < PG_INT16_MIN || n > PG_INT16_MAX) return false;
      *value = Int16GetDatum(static_cast<int16>(n));
      return true;
    }
    case ConvertKind::int4: {
      int64 n;
      if (!parse_integer(text, size, &n) || n < PG_INT32_MIN || n > PG_INT32_MAX) return false;
      *value = Int32GetDatum(static_cast<int32>(n));
      return true;
    }
    case ConvertKind::int8: {
      int64 n;
      if (!parse_integer(text, size, &n)) return false;
      *value = Int64GetDatum(n);
      return true;
    }
    case ConvertKind::float4: {
      float4 n;
      if (!parse_float(text, size, &n)) return false;
      *value = Float4GetDatum(n);
      return true;
    }
    case ConvertKind::float8: {
      float8 n;
      if (!parse_float(text, size, &n)) return false;
      *value = Float8GetDatum(n);
      return true;
    }
    case ConvertKind::varchar:
      // No more bytes than characters allowed: fits for sure.
      if (typmod >= VARHDRSZ && size > static_cast<size_t>(typmod - VARHDRSZ)) return false;
      [[fallthrough]];
    case ConvertKind::text:
      if (memchr(text, 0, size)) return false;
      *value = text_of(text, size);
      return true;
    case ConvertKind::date: {
      int days;
      if (size != 10 || !parse_day(text, &days)) return false;
      *value = DateADTGetDatum(days);
      return true;
    }
    case ConvertKind::timestamp:
    case ConvertKind::timestamptz: {
      Timestamp stamp;
      bool zone;
      int offset;
      if (!parse_timestamp(text, size, &stamp, &zone, &offset)) return false;
      // Without a zone the setting timezone has a say; timestamp ignores a zone, as its input function does.
      if (kind == ConvertKind::timestamptz) {
        if (!zone) return false;
        stamp -= offset * USECS_PER_SEC;
      }
      *value = TimestampGetDatum(stamp);
      return true;
    }
    case ConvertKind::numeric:
      return parse_numeric(text, size, value);
    case ConvertKind::uuid:
      return parse_uuid(text, size, value);
    default:
      return false;
  }
}

}  // namespace portage

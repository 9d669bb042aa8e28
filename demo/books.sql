CREATE TABLE books (
  id        integer PRIMARY KEY,
  title     text NOT NULL,
  language  char(3) NOT NULL REFERENCES languages,
  published date,
  pages     smallint CONSTRAINT pages_positive CHECK (pages > 0),
  price     numeric(8,2),
  isbn      text UNIQUE
);

SELECT portage.create_pipeline('books', 'books', $$
{ "format":    "ndjson",
  "legacy_id": "id",
  "columns": {
    "id": "id",               "title": "title",  "language": "lang",
    "published": "published", "pages": "pages",  "isbn": "isbn",
    "price": {"from": "price.eur", "default": 0} },
  "rules": {
    "price_not_negative": "price >= 0",
    "isbn_has_13_digits": {"sql": "isbn ~ '^[0-9]{13}$'",
                           "message": "an ISBN has 13 digits"},
    "not_too_thick":      {"sql": "pages < 3000", "severity": "warning"} }
}$$);

-- The target: an ordinary table with types and constraints.
CREATE TABLE languages (
  alpha_3       char(3) PRIMARY KEY,
  name          text NOT NULL,
  scope         text NOT NULL CHECK (scope IN ('I', 'M', 'S')),
  type          text NOT NULL,
  alpha_2       char(2) UNIQUE,
  bibliographic char(3),
  common_name   text,
  inverted_name text
);

-- The pipeline: how an item of the file becomes a row of the table.
SELECT portage.create_pipeline('languages', 'languages', $$
{ "format":    "json",
  "items":     "639-3",
  "legacy_id": "alpha_3",
  "columns": {
    "alpha_3": "alpha_3",  "name": "name",
    "scope": "scope",      "type": "type",
    "alpha_2": "alpha_2",  "bibliographic": "bibliographic",
    "common_name": "common_name", "inverted_name": "inverted_name" },
  "rules": {
    "code_is_three_letters": "alpha_3 ~ '^[a-z]{3}$'",
    "type_is_known":         "type IN ('A', 'C', 'E', 'H', 'L', 'S')" }
}$$);

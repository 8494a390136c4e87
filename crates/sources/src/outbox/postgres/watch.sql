-- What is told of a row: how its aggregate is called, and its columns but the hidden ones.
CREATE OR REPLACE FUNCTION tidings.row_told(
  resource text, told json, keys text[], hidden text[], OUT aggregate_id text, OUT data text
) LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $told$
  SELECT (SELECT CASE WHEN bool_and(told ->> name IS NOT NULL) THEN resource || string_agg('_' || (told ->> name), '' ORDER BY n) END
          FROM unnest(keys) WITH ORDINALITY AS k (name, n)),
         (SELECT '{' || coalesce(string_agg(to_json(key)::text || ':' || value::text, ','), '') || '}'
          FROM json_each(told) WHERE key <> ALL (hidden))
$told$;

-- Tells of a change to a table. Arguments of its triggers: the resource, and as JSON the columns of the key and the hidden
-- ones.
CREATE OR REPLACE FUNCTION tidings.watched() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $watched$
DECLARE
  keys     text[] := ARRAY(SELECT json_array_elements_text(TG_ARGV[1]::json));
  hidden   text[] := ARRAY(SELECT json_array_elements_text(TG_ARGV[2]::json));
  key_was  text;
  key_is   text;
  data_was text;
  data_is  text;
BEGIN
  IF TG_OP <> 'INSERT' THEN
    SELECT * INTO key_was, data_was FROM tidings.row_told(TG_ARGV[0], to_json(OLD), keys, hidden);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    SELECT * INTO key_is, data_is FROM tidings.row_told(TG_ARGV[0], to_json(NEW), keys, hidden);
  END IF;
  IF TG_OP = 'UPDATE' AND key_was IS NOT DISTINCT FROM key_is THEN
    IF data_was <> data_is THEN
      PERFORM tidings.emit(TG_ARGV[0] || '.updated',
        ('{"before":' || data_was || ',"after":' || data_is || '}')::json, aggregate_id => key_is);
    END IF;
    RETURN NULL;
  END IF;
  IF TG_OP <> 'INSERT' THEN
    PERFORM tidings.emit(TG_ARGV[0] || '.deleted', data_was::json, aggregate_id => key_was);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    PERFORM tidings.emit(TG_ARGV[0] || '.created', data_is::json, aggregate_id => key_is);
  END IF;
  RETURN NULL;
END
$watched$;

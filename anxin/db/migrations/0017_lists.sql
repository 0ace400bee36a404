-- Lists of large houses. What a policy asks of a row by a function costs some 10 µs for each row that
-- is passed over on the way; where the row names its place, a look at that place by its key costs one.
-- Nobody sees another row than before.

GRANT CREATE ON SCHEMA public TO anxin_gate;

-- With somebody who lives there now; where it stands its own row says.
CREATE FUNCTION device_serves_under(device integer, path_ text) RETURNS boolean LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
BEGIN
    RETURN path_ = '/'
        OR EXISTS (SELECT FROM assignments s JOIN residents r ON r.id = s.resident_id
                   JOIN places p ON p.id = r.place_id
                   WHERE s.device_key = device AND s.during @> now()
                     AND starts_with(p.path, path_));
END $$;
ALTER FUNCTION device_serves_under(integer, text) OWNER TO anxin_gate;
REVOKE ALL ON FUNCTION device_serves_under(integer, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION device_serves_under(integer, text) TO anxin_api;

REVOKE CREATE ON SCHEMA public FROM anxin_gate;

DROP POLICY api_select ON residents;
CREATE POLICY api_select ON residents FOR SELECT TO anxin_api USING (
    (SELECT acting_path()) = '/'
    OR EXISTS (SELECT FROM places p
               WHERE p.id = place_id AND starts_with(p.path, (SELECT acting_path())))
    OR id = ANY((SELECT acting_residents('status'))::bigint[]));

DROP POLICY api_select ON devices;
CREATE POLICY api_select ON devices FOR SELECT TO anxin_api USING (
    (SELECT acting_path()) = '/'
    OR EXISTS (SELECT FROM places p
               WHERE p.id = place_id AND starts_with(p.path, (SELECT acting_path())))
    OR device_serves_under(key, (SELECT acting_path()))
    OR (SELECT acting_path()) IS NULL AND EXISTS (
        SELECT FROM assignments s WHERE s.device_key = key
          AND s.resident_id = ANY((SELECT acting_residents('status'))::bigint[])));

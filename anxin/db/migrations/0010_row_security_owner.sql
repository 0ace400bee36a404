-- Who migrates without being a superuser writes as the owner, whom row security holds as well: the
-- migrations after 0010 give rights to roles. Where they ran already, this comes late and is as good.
CREATE POLICY owner_all ON role_rights FOR ALL TO anxin_owner USING (true);

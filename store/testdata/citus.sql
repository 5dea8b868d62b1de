-- A stand-in for Citus: functions of the names and parameters that Distribute calls. They write down how they were called, refuse what
-- the documentation of Citus says it refuses, and spread a table over partitions of one database, by the hash of the column it is
-- distributed by: so PostgreSQL itself enforces the rule about unique indexes, and shows which pieces a statement touches.
CREATE TABLE pg_dist_partition (logicalrelid REGCLASS PRIMARY KEY, partkey TEXT, beside TEXT, shards INT, at SERIAL);

-- What must be so for a table to be distributed at all.
CREATE FUNCTION refuse_unfit(t REGCLASS, key TEXT) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE which TEXT;
BEGIN
	SELECT i.indexrelid::regclass::text INTO which FROM pg_index i WHERE i.indrelid = t AND i.indisunique AND key IS NOT NULL AND NOT EXISTS
		(SELECT 1 FROM pg_attribute a WHERE a.attrelid = t AND a.attname = key AND a.attnum = ANY (i.indkey));
	IF FOUND THEN RAISE 'cannot create constraint on "%": unique index % does not contain the distribution column', t, which; END IF;
	IF EXISTS (SELECT 1 FROM pg_constraint WHERE contype = 'f' AND t IN (conrelid, confrelid)) THEN RAISE 'foreign key at "%"', t; END IF;
	IF EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = t AND NOT tgisinternal) THEN RAISE 'trigger at "%"', t; END IF;
	IF EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = t AND attidentity <> '' AND atttypid <> 'bigint'::regtype) THEN
		RAISE 'identity column of "%" is not bigint', t;
	END IF;
	IF EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = t AND attgenerated <> '') THEN RAISE 'generated column in "%"', t; END IF;
	IF EXISTS (SELECT 1 FROM pg_dist_partition WHERE logicalrelid = t) THEN RAISE 'table "%" is already distributed', t; END IF;
END $$;

-- Puts a table of the same name, indexes and rows in eight partitions in place of an ordinary one.
CREATE FUNCTION spread(t TEXT, key TEXT) RETURNS REGCLASS LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('ALTER TABLE %I RENAME TO whole', t);
	EXECUTE format('CREATE TABLE %I (LIKE whole INCLUDING ALL) PARTITION BY HASH (%I)', t, key);
	FOR i IN 0..7 LOOP
		EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS 8, REMAINDER %s)', t || '_piece_' || i, t, i);
	END LOOP;
	EXECUTE format('INSERT INTO %I SELECT * FROM whole', t);
	DROP TABLE whole;
	RETURN t::regclass;
END $$;

CREATE FUNCTION create_distributed_table(table_name REGCLASS, distribution_column TEXT, distribution_type TEXT DEFAULT 'hash',
	colocate_with TEXT DEFAULT 'default', shard_count INT DEFAULT NULL) RETURNS VOID LANGUAGE plpgsql AS $$
DECLARE mine OID; theirs OID;
BEGIN
	IF current_setting('citus.multi_shard_modify_mode', true) IS DISTINCT FROM 'sequential' THEN
		RAISE 'cannot execute parallel DDL after a reference table was changed in this transaction';
	END IF;
	SELECT atttypid INTO STRICT mine FROM pg_attribute WHERE attrelid = table_name AND attname = distribution_column AND attnotnull;
	PERFORM refuse_unfit(table_name, distribution_column);
	IF colocate_with NOT IN ('default', 'none') THEN
		SELECT a.atttypid INTO STRICT theirs FROM pg_dist_partition p JOIN pg_attribute a ON a.attrelid = p.logicalrelid AND a.attname = p.partkey
			WHERE p.logicalrelid = colocate_with::regclass;
		IF mine <> theirs OR shard_count IS NOT NULL THEN RAISE 'cannot colocate % with %', table_name, colocate_with; END IF;
	END IF;
	INSERT INTO pg_dist_partition VALUES (spread(CAST(table_name AS TEXT), distribution_column), distribution_column, colocate_with, shard_count);
END $$;

CREATE FUNCTION create_reference_table(table_name REGCLASS) RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
	PERFORM refuse_unfit(table_name, NULL);
	IF NOT EXISTS (SELECT 1 FROM pg_index WHERE indrelid = table_name AND indisprimary) THEN RAISE 'no primary key in "%"', table_name; END IF;
	INSERT INTO pg_dist_partition VALUES (table_name, NULL, 'reference', NULL);
END $$;

//! What a migration may contain: the build before it goes on running while it is applied and after.
//!
//! Refused are statements that break a statement of an older build (drop, rename, another type, a column
//! it does not know and must fill) and those that keep a table locked while they read all of it.
//! Widening a constraint (drop it and add it again under its name) takes nothing from an older build.

use std::collections::BTreeSet;
use std::path::Path;

/// The first release; what comes after it must keep to the rules.
const RELEASED: u32 = 4;

/// Indexes built under a lock on a table that an earlier migration made, each with its reason.
const LOCKING_INDEXES: [(&str, &str); 6] = [
    ("users_newest_first", "before launch: no installation holds many users"),
    ("invoices_open", "before launch: no installation holds many invoices"),
    ("payments_one_open_or_succeeded", "before launch: no installation holds many payments"),
    ("usage_events_unbilled", "before launch: no installation holds many events"),
    ("jobs_dead", "before launch, and of few rows"),
    ("payments_unclear", "before launch, and of few rows"),
];

/// Constraints that were dropped for good, and why no build misses them.
const LOOSENED: [(&str, &str); 1] =
    [("forecast_events_tenant_id_forecast_id_fkey", "events are made out of forecasts' rows, which nothing deletes")];

/// Statements without comments and without the bodies of functions, in upper case, one space between words.
fn statements(sql: &str) -> Vec<String> {
    let text: Vec<&str> = sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
    let text = text.join("\n");
    // Every second part stands between dollar quotes.
    let outside: Vec<&str> = text.split("$$").step_by(2).collect();
    let each = outside.join(" ");
    each.split(';')
        .map(|statement| statement.split_whitespace().collect::<Vec<_>>().join(" ").to_uppercase())
        .filter(|statement| !statement.is_empty())
        .collect()
}

/// The comma-separated parts of a statement, brackets kept together.
fn clauses(statement: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0_u32);
    for c in statement.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("never empty").push(c);
    }
    parts
}

fn word_after<'a>(text: &'a str, phrase: &str) -> Option<&'a str> {
    let rest = text.split_once(phrase)?.1.trim_start();
    rest.split([' ', '(']).next()
}

/// Everything wrong with a migration.
fn offences(sql: &str) -> Vec<String> {
    let all = statements(sql);
    let made: BTreeSet<&str> = all.iter().filter_map(|s| word_after(s, "CREATE TABLE ")).collect();
    let added: BTreeSet<&str> =
        all.iter().flat_map(|s| s.split("ADD CONSTRAINT ").skip(1)).filter_map(|s| s.split(' ').next()).collect();
    let mut found = Vec::new();
    for statement in &all {
        let mut offend = |what: &str| found.push(format!("{what}: {statement}"));
        for word in ["RENAME ", "TRUNCATE ", "LOCK TABLE", "VACUUM FULL", "CLUSTER ", "REINDEX "] {
            if statement.starts_with(word) || statement.starts_with("ALTER ") && statement.contains(&format!(" {word}"))
            {
                offend(word.trim());
            }
        }
        if statement.starts_with("DROP ") {
            offend("drop");
        }
        if let Some(index) = statement.strip_prefix("CREATE UNIQUE INDEX ").or(statement.strip_prefix("CREATE INDEX "))
        {
            let name = index.split(' ').next().unwrap_or_default().to_lowercase();
            let table = word_after(index, " ON ").unwrap_or_default();
            let is_known = LOCKING_INDEXES.iter().any(|(known, reason)| *known == name && !reason.is_empty());
            if !index.starts_with("CONCURRENTLY ") && !made.contains(table) && !is_known {
                offend("an index that locks its table");
            }
        }
        if !statement.starts_with("ALTER TABLE") {
            continue;
        }
        for clause in clauses(statement) {
            let dropped = word_after(&clause, "DROP CONSTRAINT ");
            let is_known = |name: &str| {
                LOOSENED.iter().any(|(known, reason)| known.eq_ignore_ascii_case(name) && !reason.is_empty())
            };
            if clause.contains("DROP ") && !dropped.is_some_and(|name| added.contains(name) || is_known(name)) {
                offend("drop");
            }
            if clause.contains("ALTER COLUMN") && (clause.contains(" TYPE ") || clause.contains("SET NOT NULL")) {
                offend("a column's type or nullness");
            }
            let adds_column = clause.contains("ADD COLUMN ");
            if adds_column
                && clause.contains("NOT NULL")
                && !clause.contains("DEFAULT")
                && !clause.contains("GENERATED")
            {
                offend("a column that an older build does not fill");
            }
        }
    }
    found
}

#[test]
fn every_migration_after_the_first_release_leaves_an_older_build_working() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut checked = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let version: u32 = name.split('_').next().unwrap().parse().expect("a migration begins with its number");
        if version <= RELEASED {
            continue;
        }
        let found = offences(&std::fs::read_to_string(entry.path()).unwrap());
        assert!(found.is_empty(), "{name}: {found:#?}");
        checked += 1;
    }
    assert!(checked >= 4, "{checked}");
}

#[test]
fn what_breaks_an_older_build_is_found() {
    for bad in [
        "DROP TABLE app.users;",
        "ALTER TABLE app.users DROP COLUMN name;",
        "ALTER TABLE app.users DROP CONSTRAINT users_email_key;",
        "ALTER TABLE app.users RENAME COLUMN name TO label;",
        "ALTER TABLE app.users ALTER COLUMN name TYPE varchar(20);",
        "ALTER TABLE app.users ALTER COLUMN name SET NOT NULL;",
        "ALTER TABLE app.users ADD COLUMN a text, ADD COLUMN b text NOT NULL;",
        "CREATE INDEX i ON app.users (name);",
        "CREATE UNIQUE INDEX i ON app.users (name);",
        "TRUNCATE app.users;",
        "LOCK TABLE app.users;",
    ] {
        assert_eq!(offences(bad).len(), 1, "{bad}: {:?}", offences(bad));
    }
    for good in [
        "ALTER TABLE app.users ADD COLUMN a text, ADD COLUMN b text NOT NULL DEFAULT 'x' CHECK (b IN ('x', 'y'));",
        "ALTER TABLE app.users DROP CONSTRAINT c, ADD CONSTRAINT c CHECK (name <> '');",
        "CREATE TABLE app.new (tenant_id uuid NOT NULL); CREATE INDEX i ON app.new (tenant_id);",
        "CREATE INDEX CONCURRENTLY i ON app.users (name);",
        "CREATE FUNCTION app.f() RETURNS void LANGUAGE sql AS $$ DROP TABLE app.users; $$;",
        "-- DROP TABLE app.users;\nSELECT 1;",
    ] {
        assert_eq!(offences(good), Vec::<String>::new(), "{good}");
    }
}

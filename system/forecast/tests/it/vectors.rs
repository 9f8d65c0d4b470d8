//! Whole results computed elsewhere, by a separate program in exact fractions, compared byte by byte.

use std::path::Path;

use serde_json::Value;

use crate::scenario::{company, computed, with};

#[test]
fn results_equal_those_of_a_separate_exact_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/vectors");
    let mut compared = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let vector: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let found = computed(&vector["input"]).result;
        let differing =
            vector["result"].as_object().unwrap().iter().find(|(key, value)| found[key.as_str()] != **value);
        if let Some((key, expected)) = differing {
            panic!("{}: {key}\nexpected {expected}\nfound    {}", path.display(), found[key.as_str()]);
        }
        assert_eq!(found.as_object().unwrap().len(), vector["result"].as_object().unwrap().len());
        compared += 1;
    }
    assert!(compared >= 10, "only {compared} vectors in {}", folder.display());
}

#[test]
fn hashes_are_those_of_engine_version_1() {
    // These change only together with ENGINE_VERSION.
    let plain = computed(&company());
    assert_eq!(plain.result_hash, "94803f92eb4d7b7043f1a6b890c9b0879a380d23e23bf907d156319ad4e90750");
    let block = serde_json::json!({ "paths": 600, "price_sigma_monthly": "0.12", "adds_sigma_monthly": "0.3", "seed": "18446744073709551615" });
    let uncertain = computed(&with(&company(), "/uncertainty", block));
    assert_eq!(uncertain.result_hash, "fe8773d170b23e934a3efebf2a14c1e1b25f926cdc6b992cda04a9946fba6a8b");
}

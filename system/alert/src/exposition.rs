//! Prometheus's text format, as far as our own processes write it.

use std::collections::BTreeMap;

/// One line: a metric's name, its labels and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// Every sample of the text; lines that do not read are passed over.
pub(crate) fn parse(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let (head, value) = line.trim().rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, rest)) = head.split_once('{') else {
        return Some(Sample { name: head.to_owned(), labels: BTreeMap::new(), value });
    };
    let mut labels = BTreeMap::new();
    let mut rest = rest.strip_suffix('}')?;
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"")?;
        // Values of ours hold no escaped quotes: labels come from fixed lists.
        let (word, after) = after.split_once('"')?;
        labels.insert(label.to_owned(), word.to_owned());
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    Some(Sample { name: name.to_owned(), labels, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_values_are_read_and_rubbish_is_passed_over() {
        let text = "# HELP x y\n# TYPE a counter\na{route=\"/v1/x/{id}\",status=\"500\"} 3\nb 0.5\nc{x=\"1\" 2\nd\n\n";
        let samples = parse(text);
        assert_eq!(samples.len(), 2);
        assert_eq!((samples[0].name.as_str(), samples[0].value), ("a", 3.0));
        assert_eq!(samples[0].labels["route"], "/v1/x/{id}");
        assert_eq!(samples[0].labels["status"], "500");
        assert_eq!((samples[1].name.as_str(), samples[1].value), ("b", 0.5));
    }
}

//! `--format`: the part of Go's templates that people type at docker: fields, `json`, `len`, `upper`, `lower`, text.

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Fills a template with the fields of a value.
pub fn fill(template: &str, value: &Value) -> anyhow::Result<String> {
    let template = template.replace("\\t", "\t").replace("\\n", "\n");
    let mut text = String::new();
    let mut rest = template.as_str();
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let (action, behind) = after
            .split_once("}}")
            .with_context(|| format!("--format: '{{{{{after}' has no closing '}}}}'"))?;
        text.push_str(&act(action.trim(), value)?);
        rest = behind;
    }
    text.push_str(rest);
    Ok(text)
}

fn act(action: &str, value: &Value) -> anyhow::Result<String> {
    // `.Field | upper` and `upper .Field` mean the same.
    let mut steps = action.split('|').map(str::trim);
    let first = steps.next().unwrap_or_default();
    let (mut functions, path) = match first.rsplit_once(' ') {
        Some((functions, path)) => (functions.split_whitespace().rev().collect::<Vec<_>>(), path),
        None => (Vec::new(), first),
    };
    functions.extend(steps);
    let mut found = field(path, value)?.clone();
    for function in functions {
        found = match (function, &found) {
            ("json", found) => Value::String(found.to_string()),
            ("len", Value::Array(list)) => list.len().into(),
            ("len", Value::Object(map)) => map.len().into(),
            ("len", Value::String(text)) => text.len().into(),
            ("upper", found) => show(found).to_uppercase().into(),
            ("lower", found) => show(found).to_lowercase().into(),
            (other, _) => bail!("--format: '{other}' is not known here; there are json, len, upper, lower"),
        };
    }
    Ok(show(&found))
}

fn field<'a>(path: &str, value: &'a Value) -> anyhow::Result<&'a Value> {
    let Some(path) = path.strip_prefix('.') else {
        bail!("--format: '{path}' is no field: those begin with a dot")
    };
    let mut found = value;
    for name in path.split('.').filter(|name| !name.is_empty()) {
        found = found.get(name).with_context(|| format!("--format: there is no field .{path}"))?;
    }
    Ok(found)
}

/// As Go prints it.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", show(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_functions_and_text_are_filled_in() {
        let value = json!({"State": {"Running": true, "ExitCode": 0}, "Name": "/web", "Cmd": ["a", "b"], "None": null});
        for (template, text) in [
            ("{{.State.Running}} {{.Name}}", "true /web"),
            ("{{json .Cmd}}\\t{{len .Cmd}}", "[\"a\",\"b\"]\t2"),
            ("{{.Cmd}} {{.Name | upper}}", "[a b] /WEB"),
            ("{{.None}}", "<nil>"),
            ("no fields", "no fields"),
        ] {
            assert_eq!(fill(template, &value).unwrap(), text);
        }
        for template in ["{{.State", "{{.Nothing}}", "{{State}}", "{{fly .Name}}"] {
            assert!(fill(template, &value).is_err(), "{template}");
        }
    }
}

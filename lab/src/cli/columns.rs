//! Lists of things: docker's columns, or a template for each line.

use std::fmt::Write as _;

use serde_json::Value;

use super::style::HEADING;
use super::template;

/// Docker's tables: cells are at least this wide, with so many blanks between them (text/tabwriter).
const WIDTH: usize = 10;
const GAP: usize = 3;

/// Writes rows as a table, as JSON a line each, or by a Go template; `table TEMPLATE` is a table of what the template has.
/// `columns` are the table's headings, each with the name of its field; `extra` are fields that only templates show.
pub fn list(
    format: Option<&str>,
    columns: &[(&str, &str)],
    extra: &[(&str, &str)],
    rows: &[Value],
) -> anyhow::Result<String> {
    let mut text = String::new();
    match format.unwrap_or("table") {
        "table" => {
            let cell = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
            let rows = rows.iter().map(|row| columns.iter().map(|(_, key)| cell(row, key)).collect());
            let head = columns.iter().map(|(head, _)| (*head).to_owned()).collect();
            text = table(head, rows.collect());
        }
        "json" => rows.iter().for_each(|row| {
            let _ = writeln!(text, "{row}");
        }),
        format => {
            let Some(template) = format.strip_prefix("table ") else {
                for row in rows {
                    text.push_str(&template::fill(format, row)?);
                    text.push('\n');
                }
                return Ok(text);
            };
            let heads =
                columns.iter().chain(extra).map(|(head, key)| ((*key).to_owned(), Value::from(*head)));
            let cells = |row: &Value| -> anyhow::Result<Vec<String>> {
                Ok(template::fill(template.trim(), row)?.split('\t').map(str::to_owned).collect())
            };
            let head = cells(&Value::Object(heads.collect()))?;
            text = table(head, rows.iter().map(cells).collect::<anyhow::Result<_>>()?);
        }
    }
    Ok(text)
}

fn table(head: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let width = |column: usize| {
        let cells = std::iter::once(&head).chain(&rows).filter_map(|row| row.get(column));
        (cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + GAP).max(WIDTH)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<String>().trim_end().to_owned()
    };
    let mut text = format!("{HEADING}{}{HEADING:#}\n", line(&head));
    for row in &rows {
        let _ = writeln!(text, "{}", line(row));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_is_a_table_lines_of_json_or_what_a_template_says() {
        let rows = [json!({"ID": "1", "Name": "one"}), json!({"ID": "2", "Name": "twelve letters"})];
        let columns = [("IMAGE ID", "ID"), ("NAME", "Name")];
        let plain =
            |format| anstream::adapter::strip_str(&list(format, &columns, &[], &rows).unwrap()).to_string();
        assert_eq!(plain(None), "IMAGE ID   NAME\n1          one\n2          twelve letters\n");
        assert_eq!(
            plain(Some("table {{.Name}}\\t{{.ID}}")),
            "NAME             IMAGE ID\none              1\ntwelve letters   2\n"
        );
        assert_eq!(plain(Some("{{.ID}}")), "1\n2\n");
        assert!(plain(Some("json")).starts_with("{\"ID\":\"1\""));
    }
}

//! A tree, written for a terminal or as SVG.

use std::fmt::Write as _;

use super::super::report::escape;
use super::Node;

/// Lines with branches, as `tree(1)` draws them.
pub fn terminal(node: &Node) -> String {
    let mut text = format!("{}\n", node.text);
    branches(&mut text, &node.below, "");
    text
}

fn branches(text: &mut String, nodes: &[Node], before: &str) {
    for (index, node) in nodes.iter().enumerate() {
        let last = index + 1 == nodes.len();
        let (joint, next) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let _ = writeln!(text, "{before}{joint}{}", node.text);
        branches(text, &node.below, &format!("{before}{next}"));
    }
}

/// The height of a line, the indentation of a level, and the width of a character of the font, in pixels.
const LINE: usize = 26;
const INDENT: usize = 22;
const CHARACTER: usize = 8;
/// Around everything.
const MARGIN: usize = 12;

/// The same as SVG: a box a line, joined to the one that it belongs to. Colours follow the reader's light or dark page.
pub fn svg(nodes: &[Node]) -> String {
    let mut boxes = Vec::new();
    for node in nodes {
        place(node, 0, None, &mut boxes);
    }
    let width = boxes.iter().map(Placed::right).max().unwrap_or_default() + MARGIN;
    let height = boxes.len() * LINE + 2 * MARGIN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"monospace\" font-size=\"13\">\n\
         <style>rect{{fill:none;stroke:#4477aa}}.d0 rect{{fill:#4477aa}}.d0 text{{fill:#fff}}text{{fill:#335}}\
         path{{stroke:#99a;fill:none}}@media(prefers-color-scheme:dark){{text{{fill:#dde}}}}</style>\n"
    );
    for (row, placed) in boxes.iter().enumerate() {
        let (x, y) = (placed.left(), MARGIN + row * LINE);
        if let Some(parent) = placed.parent {
            let (from, middle) = (boxes[parent].left() + INDENT / 2, y + LINE / 2 - 2);
            let _ = writeln!(text, "<path d=\"M{from} {}V{middle}H{x}\"/>", MARGIN + (parent + 1) * LINE - 4);
        }
        let (width, baseline) = (placed.right() - x, y + 15);
        let _ = writeln!(
            text,
            "<g class=\"d{}\"><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{}\" rx=\"3\"/>\
             <text x=\"{}\" y=\"{baseline}\" xml:space=\"preserve\">{}</text></g>",
            placed.depth,
            LINE - 4,
            x + CHARACTER,
            escape(placed.text)
        );
    }
    text + "</svg>\n"
}

struct Placed<'a> {
    text: &'a str,
    depth: usize,
    /// The row of the box that it belongs to.
    parent: Option<usize>,
}

impl Placed<'_> {
    fn left(&self) -> usize {
        MARGIN + self.depth * INDENT
    }

    fn right(&self) -> usize {
        self.left() + (self.text.chars().count() + 2) * CHARACTER
    }
}

fn place<'a>(node: &'a Node, depth: usize, parent: Option<usize>, boxes: &mut Vec<Placed<'a>>) {
    let row = boxes.len();
    boxes.push(Placed { text: &node.text, depth, parent });
    for child in &node.below {
        place(child, depth + 1, Some(row), boxes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Node {
        Node::new("root").with([Node::new("a").with([Node::new("<b> & \"c\"")]), Node::new("d")])
    }

    #[test]
    fn a_terminal_s_branches_join_what_belongs_together() {
        assert_eq!(terminal(&tree()), "root\n├─ a\n│  └─ <b> & \"c\"\n└─ d\n");
    }

    #[test]
    fn svg_has_a_box_a_line_and_escapes_what_a_sandbox_calls_itself() {
        let text = svg(&[tree()]);
        assert_eq!(text.matches("<rect").count(), 4);
        assert_eq!(text.matches("<path").count(), 3);
        assert!(text.contains("&lt;b&gt; &amp; &quot;c&quot;"), "{text}");
    }
}

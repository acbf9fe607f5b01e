//! A Markdown document, parsed into the parts that can be compared with the repository.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::repository::root;

/// The parts of a document that are checked.
#[derive(Default)]
pub struct Document {
    /// Its path in the repository.
    pub path: PathBuf,
    /// The targets of its links and images.
    pub links: Vec<String>,
    /// The anchors of its headings.
    pub anchors: HashSet<String>,
    /// Text in code style, outside tables.
    pub codes: Vec<String>,
    /// The names in capitals in the first column of tables of settings.
    pub rows: Vec<String>,
    /// Text in code style, inside tables.
    pub cells: Vec<String>,
    /// Its code blocks.
    pub blocks: Vec<Block>,
}

/// A code block.
pub struct Block {
    /// Its language; empty when unspecified.
    pub language: String,
    /// Its content.
    pub text: String,
    /// True if it is marked as untested.
    pub untested: bool,
}

impl Document {
    /// Reads the document at this path in the repository.
    pub fn read(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let text = fs::read_to_string(root().join(&path));
        let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::parse(path, &text)
    }

    /// Parses a text as the document at this path.
    pub fn parse(path: PathBuf, text: &str) -> Self {
        let mut document = Self {
            path,
            ..Self::default()
        };
        let mut slugs: HashMap<String, usize> = HashMap::new();
        let mut heading: Option<String> = None;
        let mut block: Option<Block> = None;
        let mut untested = false;
        let (mut in_table, mut in_head, mut of_settings) = (false, false, false);
        let mut cell = String::new();
        let mut column = 0;
        for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
            if let Event::Start(tag) = &event
                && !matches!(tag, Tag::HtmlBlock | Tag::CodeBlock(_))
            {
                untested = false;
            }
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let slug = slug(&heading.take().unwrap());
                    let count = slugs.entry(slug.clone()).or_default();
                    document.anchors.insert(match *count {
                        0 => slug,
                        again => format!("{slug}-{again}"),
                    });
                    *count += 1;
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.links.push(dest_url.into_string());
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    let language = match kind {
                        CodeBlockKind::Fenced(language) => language.into_string(),
                        CodeBlockKind::Indented => String::new(),
                    };
                    block = Some(Block {
                        language,
                        text: String::new(),
                        untested: std::mem::take(&mut untested),
                    });
                }
                Event::End(TagEnd::CodeBlock) => document.blocks.extend(block.take()),
                Event::Html(html) => untested = html.starts_with("<!-- not tested: "),
                Event::Start(Tag::Table(_)) => in_table = true,
                Event::End(TagEnd::Table) => (in_table, of_settings) = (false, false),
                Event::Start(Tag::TableHead) => (in_head, column) = (true, 0),
                Event::End(TagEnd::TableHead) => in_head = false,
                Event::Start(Tag::TableRow) => column = 0,
                Event::Start(Tag::TableCell) => cell.clear(),
                Event::End(TagEnd::TableCell) => {
                    if column == 0 && in_head {
                        of_settings = matches!(cell.as_str(), "name" | "setting");
                    } else if column == 0 && of_settings && is_capitals(&cell) {
                        document.rows.push(cell.clone());
                    }
                    column += 1;
                }
                Event::Text(text) => match (&mut block, &mut heading) {
                    (Some(block), _) => block.text.push_str(&text),
                    (_, Some(heading)) => heading.push_str(&text),
                    _ => cell.push_str(&text),
                },
                Event::Code(code) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&code);
                    }
                    cell.push_str(&code);
                    let codes = if in_table {
                        &mut document.cells
                    } else {
                        &mut document.codes
                    };
                    codes.push(code.into_string());
                }
                _ => {}
            }
        }
        document
    }

    /// Its YAML blocks.
    pub fn yaml(&self) -> impl Iterator<Item = &Block> {
        let blocks = self.blocks.iter();
        blocks.filter(|block| block.language == "yaml")
    }

    pub fn rust(&self) -> impl Iterator<Item = &Block> {
        let blocks = self.blocks.iter();
        blocks.filter(|block| block.language == "rust")
    }

    /// The commands of its blocks, each with whether its block is marked as untested.
    pub fn commands(&self) -> impl Iterator<Item = (String, bool)> {
        self.blocks.iter().flat_map(|block| {
            let prompt = match block.language.as_str() {
                "console" => Some("$ "),
                "sh" | "bash" | "shell" => Some(""),
                _ => None,
            };
            let text = block.text.replace("\\\n", " ");
            let lines: Vec<String> = text
                .lines()
                .filter_map(|line| line.strip_prefix(prompt?))
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(str::to_owned)
                .collect();
            lines.into_iter().map(|line| (line, block.untested))
        })
    }
}

/// Returns true if a name is written like a setting.
pub fn is_capitals(name: &str) -> bool {
    let capitals = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(capitals)
}

/// The anchor that GitHub generates for a heading.
fn slug(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

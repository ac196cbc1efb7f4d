//! Fenced blocks of Markdown.

/// A fenced block.
pub(crate) struct Block {
    /// The line of its opening fence, from 1.
    pub(crate) line: usize,
    /// What stands behind the fence: `yaml,run`.
    info: String,
    /// Its content, without the indentation of the fence.
    pub(crate) text: String,
}

impl Block {
    /// The first word of the info string.
    pub(crate) fn language(&self) -> &str {
        self.info.split(',').next().unwrap_or("").trim()
    }

    /// The words after it.
    pub(crate) fn marks(&self) -> impl Iterator<Item = &str> {
        self.info.split(',').skip(1).map(str::trim)
    }

    /// Whether it has a mark.
    pub(crate) fn has(&self, mark: &str) -> bool {
        self.marks().any(|other| other == mark)
    }
}

/// The fenced blocks of a text, in order. A fence inside a longer fence is content.
pub(crate) fn of(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(Block, usize, usize)> = None;
    for (i, line) in text.lines().enumerate() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        let ticks = content.len() - content.trim_start_matches('`').len();
        match &mut open {
            None if ticks >= 3 => {
                let block = Block {
                    line: i + 1,
                    info: content[ticks..].trim().to_owned(),
                    text: String::new(),
                };
                open = Some((block, ticks, indent));
            }
            None => {}
            Some((_, fence, _)) if ticks >= *fence && content.trim_end().len() == ticks => {
                blocks.extend(open.take().map(|(block, ..)| block));
            }
            Some((block, _, outer)) => {
                block.text.push_str(&line[indent.min(*outer)..]);
                block.text.push('\n');
            }
        }
    }
    blocks.extend(open.map(|(block, ..)| block));
    blocks
}

/// The lines of a text that are in no block, with their numbers from 1.
pub(crate) fn prose(text: &str) -> Vec<(usize, &str)> {
    let inside: Vec<_> = of(text)
        .iter()
        .map(|block| block.line..=block.line + block.text.lines().count() + 1)
        .collect();
    let numbered = text.lines().enumerate().map(|(i, line)| (i + 1, line));
    numbered
        .filter(|(number, _)| !inside.iter().any(|lines| lines.contains(number)))
        .collect()
}

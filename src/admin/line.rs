//! Cuts a line into commands and a command into words. Pure.
//!
//! `;` ends a command and blanks part its words; a backslash takes the special
//! meaning from the character behind it.

/// The most words of one command.
pub const MOST_WORDS: usize = 64;

/// The words of one command, or `None` if there are too many.
pub type Words = Option<Vec<String>>;

/// The commands of a line. What is empty between two `;` is no command.
pub fn commands(line: &str) -> Vec<Words> {
    let mut commands = Vec::new();
    let mut command = Unfinished::default();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ';' => command.end(&mut commands),
            _ if c.is_ascii_whitespace() => command.end_word(),
            '\\' => match chars.next() {
                Some(escaped) => command.push(escaped),
                None => command.push('\\'),
            },
            _ => command.push(c),
        }
    }
    command.end(&mut commands);
    commands
}

/// A line without its mark of a payload (`<<` or `<<END` as the last word),
/// and the line that ends the payload, where one follows.
pub fn payload(line: &str) -> (&str, Option<String>) {
    let line = line.trim_end();
    let start = line.rfind(|c: char| c.is_ascii_whitespace() || c == ';');
    let (before, last) = line.split_at(start.map_or(0, |at| at + 1));
    match last.strip_prefix("<<") {
        Some(end) => (before, Some(end.to_owned())),
        None => (line, None),
    }
}

#[derive(Default)]
struct Unfinished {
    words: Vec<String>,
    word: Option<String>,
    too_many: bool,
}

impl Unfinished {
    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else {
            return;
        };
        if self.words.len() < MOST_WORDS {
            self.words.push(word);
        } else {
            self.too_many = true;
        }
    }

    fn end(&mut self, commands: &mut Vec<Words>) {
        self.end_word();
        let Self {
            words, too_many, ..
        } = std::mem::take(self);
        if !words.is_empty() {
            commands.push((!too_many).then_some(words));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(line: &str) -> Vec<Vec<String>> {
        commands(line).into_iter().map(Option::unwrap).collect()
    }

    #[test]
    fn a_semicolon_ends_a_command_and_blanks_part_words() {
        assert_eq!(
            cut("show info; get  weight\tb/s ;\r\n"),
            [vec!["show", "info"], vec!["get", "weight", "b/s"]]
        );
        assert!(cut(" ; ;\r\n").is_empty());
    }

    #[test]
    fn a_backslash_takes_the_meaning_from_what_follows() {
        assert_eq!(cut(r"a\;b"), [["a;b"]]);
        assert_eq!(cut(r"a\ b"), [["a b"]]);
        assert_eq!(cut(r"a\\;b"), [[r"a\"], ["b"]]);
        assert_eq!(cut(r"a\"), [[r"a\"]]);
    }

    #[test]
    fn a_payload_is_announced_by_the_last_word() {
        assert_eq!(
            payload("add map m <<\r\n"),
            ("add map m ", Some(String::new()))
        );
        let (line, end) = payload("show version;add map m <<EOF\n");
        assert_eq!(
            (line, end.as_deref()),
            ("show version;add map m ", Some("EOF"))
        );
        assert_eq!(payload("add map m << x\n"), ("add map m << x", None));
        assert_eq!(payload("\n"), ("", None));
    }

    #[test]
    fn a_command_has_64_words_at_the_most() {
        assert_eq!(cut(&"a ".repeat(64)), [vec!["a"; 64]]);
        let line = "a ".repeat(65) + "; b";
        assert_eq!(commands(&line), [None, Some(vec!["b".to_owned()])]);
    }

    proptest! {
        #[test]
        fn any_line_can_be_cut(line in ".*") {
            for words in commands(&line).into_iter().flatten() {
                prop_assert!(!words.is_empty() && words.len() <= MOST_WORDS);
            }
        }

        #[test]
        fn escaped_words_come_out_as_they_were(
            words in proptest::collection::vec("[ -~]{1,8}", 1..8)
        ) {
            let escape = |word: &String| -> String {
                word.chars().flat_map(|c| ['\\', c]).collect()
            };
            let line: Vec<String> = words.iter().map(escape).collect();
            prop_assert_eq!(cut(&line.join(" ")), vec![words]);
        }
    }
}

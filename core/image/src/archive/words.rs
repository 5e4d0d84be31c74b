//! Words of a Dockerfile's line: quotes, backslashes and variables (docs.docker.com/reference/dockerfile, "Environment
//! replacement").

/// What comes out of one line, with a bound on what variables may grow it to.
const TEXT_BYTES_MAX: usize = 128 << 10;

/// Words between blanks; quotes keep blanks.
pub(super) fn words(text: &str, env: &[(String, String)]) -> Result<Vec<String>, String> {
    Reader { letters: text.chars().peekable(), env, room: TEXT_BYTES_MAX }.read(true)
}

/// The whole text as one word.
pub(super) fn expand(text: &str, env: &[(String, String)]) -> Result<String, String> {
    let words = Reader { letters: text.chars().peekable(), env, room: TEXT_BYTES_MAX }.read(false)?;
    Ok(words.into_iter().next().unwrap_or_default())
}

struct Reader<'a> {
    letters: std::iter::Peekable<std::str::Chars<'a>>,
    env: &'a [(String, String)],
    room: usize,
}

impl Reader<'_> {
    fn read(mut self, split: bool) -> Result<Vec<String>, String> {
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        while let Some(letter) = self.letters.next() {
            match (letter, quote) {
                ('\'', Some('\'')) | ('"', Some('"')) => quote = None,
                ('\'' | '"', None) => {
                    quote = Some(letter);
                    word.get_or_insert_default();
                }
                ('$', None | Some('"')) => {
                    let value = self.variable()?;
                    word.get_or_insert_default().push_str(&value);
                }
                ('\\', None) => word.get_or_insert_default().extend(self.letters.next()),
                // Between double quotes a backslash keeps only what would have a meaning there.
                ('\\', Some('"')) => {
                    let kept = self.letters.next_if(|next| matches!(next, '"' | '$' | '\\'));
                    word.get_or_insert_default().push(kept.unwrap_or('\\'));
                }
                (_, None) if split && letter.is_whitespace() => words.extend(word.take()),
                _ => word.get_or_insert_default().push(letter),
            }
        }
        if quote.is_some() {
            return Err("a quote is not closed".into());
        }
        words.extend(word);
        Ok(words)
    }

    /// After a `$`. What is not set is empty.
    fn variable(&mut self) -> Result<String, String> {
        let is_name = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
        let braced = self.letters.next_if_eq(&'{').is_some();
        let mut name = String::new();
        while let Some(letter) = self.letters.next_if(is_name) {
            name.push(letter);
        }
        if braced && (self.letters.next() != Some('}') || name.is_empty()) {
            return Err("of variables only `$NAME` and `${NAME}` are supported".into());
        }
        if name.is_empty() {
            return Ok("$".into());
        }
        let value = self.env.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
        self.room = self.room.checked_sub(value.len()).ok_or("its variables make it too long")?;
        Ok(value.to_owned())
    }
}

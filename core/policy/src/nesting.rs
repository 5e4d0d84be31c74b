//! How deep a policy's text nests, found before it is parsed: Cedar's parser and everything that walks what it makes go
//! down by recursion, and a stack that ends ends the program. A few kilobytes of brackets would do.

/// Brackets within one another.
const BRACKETS_MAX: usize = 40;
/// Operators, one on top of the other: those of a chain (`a && b && c`), and of the chains around it.
const OPERATORS_MAX: usize = 500;
/// Words that build on what stands before or around them.
const WORDS: [&str; 5] = ["if", "in", "has", "like", "is"];

/// Byte offset of the place where it is too deep, and why.
pub(crate) fn too_deep(text: &str) -> Option<(usize, String)> {
    // Operators so far in each open bracket, since its last comma.
    let mut open: Vec<usize> = vec![0];
    let mut around = 0_usize;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let offset = text.len() - rest.len();
        let (length, token) = token(rest, first);
        rest = rest.get(length..).unwrap_or_default();
        match token {
            Token::Nothing => {}
            Token::Open => open.push(0),
            Token::Close => {
                around -= open.pop().unwrap_or(0);
                if open.is_empty() {
                    open.push(0);
                }
            }
            Token::Separator => {
                if let Some(last) = open.last_mut() {
                    around -= std::mem::take(last);
                }
            }
            Token::Operator => {
                if let Some(last) = open.last_mut() {
                    *last += 1;
                    around += 1;
                }
            }
        }
        if open.len() > BRACKETS_MAX + 1 {
            return Some((offset, format!("more than {BRACKETS_MAX} brackets are within one another")));
        }
        if around > OPERATORS_MAX {
            let why =
                format!("more than {OPERATORS_MAX} operators build on one another; write several policies");
            return Some((offset, why));
        }
    }
    None
}

enum Token {
    Nothing,
    Open,
    Close,
    Separator,
    Operator,
}

/// The next token and its length in bytes, which is never 0.
fn token(rest: &str, first: char) -> (usize, Token) {
    match first {
        '"' => (string(rest), Token::Nothing),
        '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), Token::Nothing),
        '(' | '[' | '{' => (1, Token::Open),
        ')' | ']' | '}' => (1, Token::Close),
        ',' | ';' => (1, Token::Separator),
        '&' | '|' | '=' | '!' | '<' | '>' | '+' | '-' | '*' | '.' => {
            let two = ["&&", "||", "==", "!=", "<=", ">="].iter().any(|two| rest.starts_with(two));
            (if two { 2 } else { 1 }, Token::Operator)
        }
        _ if first.is_alphanumeric() || first == '_' => {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let word = rest.get(..end).unwrap_or_default();
            (end, if WORDS.contains(&word) { Token::Operator } else { Token::Nothing })
        }
        other => (other.len_utf8(), Token::Nothing),
    }
}

/// Up to and with the closing quote.
fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (index, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return index + 1,
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(condition: &str) -> String {
        format!("@id(\"x\") forbid (principal, action, resource) when {{ {condition} }};")
    }

    #[test]
    fn what_nests_without_end_is_found_where_it_is_too_deep() {
        for (text, expected) in [
            ("(".repeat(41), "brackets"),
            ("[".repeat(100_000), "brackets"),
            (format!("({}true)", "!(".repeat(39)), "brackets"),
            (vec!["a"; 1000].join(" && "), "operators"),
            (vec!["a"; 1000].join("||"), "operators"),
            (format!("a{}", ".b".repeat(501)), "operators"),
            ("if a then b else ".repeat(501), "operators"),
            ("-".repeat(501), "operators"),
            // Chains within chains.
            ("a + b + c + d + e + f + g + h + i + j + k + l + m + n + (".repeat(39), "operators"),
        ] {
            let text = when(&text);
            let (offset, why) = too_deep(&text).unwrap();
            assert!(why.contains(expected), "{why}");
            assert!(offset < text.len());
        }
    }

    #[test]
    fn what_is_long_but_flat_is_good() {
        let list =
            (0..10_000).map(|n| format!("Bulkhead::Tenant::\"t{n}.&&\"")).collect::<Vec<_>>().join(", ");
        for text in [
            when(&format!("principal in [{list}]")),
            when("true").repeat(1000),
            format!("// {}\n{}", "(".repeat(1000), when("true")),
            when(&format!("resource.name like \"{}\\\"{}\"", "(".repeat(1000), ")&&".repeat(1000))),
            when(&vec!["a.b == c.d"; 50].join(" && ")),
            ")".repeat(1000),
            "\"".into(),
            "\"\\".into(),
            "ä€".into(),
        ] {
            assert_eq!(too_deep(&text), None, "{}", text.chars().take(80).collect::<String>());
        }
    }
}

//! Messages: what a mail says, written as the bytes that a server takes.

use lettre::Message;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment as Part, Mailbox, MultiPart, SinglePart};

use crate::readable::line;

/// A file that goes with a message.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// Its name.
    pub name: String,
    /// Its media type.
    pub media_type: &'static str,
    /// Its content.
    pub content: Vec<u8>,
}

/// What a mail says.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// The subject, whole.
    pub subject: String,
    /// Its `Message-ID`: the same for a message that is sent again.
    pub message_id: String,
    /// What it says, as plain text.
    pub text: String,
    /// The same as HTML.
    pub html: Option<String>,
    /// What goes with it.
    pub attachments: Vec<Attachment>,
}

/// Sent by a program: nobody's absence need be answered to it.
const NO_ANSWERS: [(&str, &str); 2] = [("Auto-Submitted", "auto-generated"), ("X-Auto-Response-Suppress", "All")];

/// Writes a message. No text of it can become a header: breaks are not written.
pub(super) fn write(from: &Mailbox, to: &[Mailbox], draft: Draft) -> Result<Vec<u8>, String> {
    let message_id = line(&draft.message_id).replace(' ', "");
    let mut builder =
        Message::builder().from(from.clone()).message_id(Some(message_id)).subject(line(&draft.subject)).date_now();
    for mailbox in to {
        builder = builder.to(mailbox.clone());
    }
    for (name, value) in NO_ANSWERS {
        let name = HeaderName::new_from_ascii(name.to_owned()).map_err(|error| error.to_string())?;
        builder = builder.raw_header(HeaderValue::new(name, value.to_owned()));
    }
    let text = SinglePart::plain(draft.text);
    let written = match (draft.html, draft.attachments) {
        (None, attachments) if attachments.is_empty() => builder.singlepart(text),
        (html, attachments) => {
            let body = match html {
                Some(html) => MultiPart::alternative().singlepart(text).singlepart(SinglePart::html(html)),
                None => MultiPart::mixed().singlepart(text),
            };
            let body = if attachments.is_empty() { body } else { with(body, attachments)? };
            builder.multipart(body)
        }
    };
    written.map(|message| message.formatted()).map_err(|error| format!("cannot write the message: {error}"))
}

fn with(body: MultiPart, attachments: Vec<Attachment>) -> Result<MultiPart, String> {
    let mut whole = MultiPart::mixed().multipart(body);
    for attachment in attachments {
        let media_type = ContentType::parse(attachment.media_type)
            .map_err(|error| format!("{} is no media type: {error}", attachment.media_type))?;
        whole = whole.singlepart(Part::new(line(&attachment.name)).body(attachment.content, media_type));
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(draft: Draft) -> String {
        let to = ["Ops <ops@example.com>".parse().unwrap(), "b@example.com".parse().unwrap()];
        let bytes = write(&"a@example.com".parse().unwrap(), &to, draft).unwrap();
        assert!(bytes.is_ascii(), "it is not fit for every server");
        assert!(bytes.split(|byte| *byte == b'\n').all(|line| line.len() < 998), "a line is too long");
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn nothing_becomes_a_header() {
        let text = written(Draft {
            subject: "x\r\nBcc: evil@example.com\nY: z \u{1f525}".repeat(20),
            message_id: "<1@example.com>\r\nX-Evil: 1".into(),
            text: "Bcc: body@example.com\r\n.\r\nMAIL FROM:<x>".into(),
            ..Draft::default()
        });
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let names: Vec<&str> = head
            .split("\r\n")
            .filter(|line| !line.starts_with([' ', '\t']))
            .filter_map(|line| line.split_once(':'))
            .map(|(name, _)| name)
            .collect();
        let mut expected = [
            "From",
            "Message-ID",
            "Subject",
            "Date",
            "To",
            "Auto-Submitted",
            "X-Auto-Response-Suppress",
            "MIME-Version",
            "Content-Type",
            "Content-Transfer-Encoding",
        ];
        let mut found = names.clone();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{head}");
        assert!(body.contains("Bcc: body"));
    }

    #[test]
    fn both_forms_and_what_is_attached() {
        let text = written(Draft {
            subject: "s".into(),
            message_id: "<1@example.com>".into(),
            text: "plain ünï".into(),
            html: Some(format!("<p>{}</p>", "long ".repeat(1000))),
            attachments: vec![Attachment {
                name: "f.csv".into(),
                media_type: "text/csv; charset=utf-8",
                content: vec![0; 5000],
            }],
        });
        for part in
            ["multipart/mixed", "multipart/alternative", "text/plain", "text/html", "filename=\"f.csv\"", "base64"]
        {
            assert!(text.contains(part), "{part}");
        }
        assert!(text.contains("Message-ID: <1@example.com>\r\n"));
    }
}

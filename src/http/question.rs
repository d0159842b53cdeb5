//! Questions that may be large: lists of documents, ids and revisions.
//!
//! They are checked on a thread that may block, and then read where they stand, an element at a time, so that a question
//! takes no more than the bytes it came in, which count among all bodies in memory (`request.rs`). What has to be made of
//! it all at once, and is larger than that, counts there too before it is made ([`QuestionMemory`]).

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::document::DocumentError;
use crate::json::{self, Cursor};

use super::error::ApiError;

/// Bytes of one element at most: nobody asks for so many revisions of one document.
const ELEMENT_BYTES: usize = 4 << 20;

/// An array of a question.
#[derive(Debug, Clone)]
pub struct List {
    text: Bytes,
    cursor: Cursor,
}

impl List {
    /// The array that is this member of the question, all of which is checked; `None` if there is no such member.
    ///
    /// # Errors
    /// The question is no JSON object, or the member no array: `not_a_list`.
    pub fn of(question: &Bytes, name: &str, not_a_list: &'static str) -> Result<Option<Self>, ApiError> {
        let Some(text) = json::member(question, name)? else { return Ok(None) };
        if !text.starts_with(b"[") {
            return Err(ApiError::bad_request(not_a_list));
        }
        Ok(Some(Self { text: question.slice_ref(text), cursor: Cursor::default() }))
    }

    /// The array that a text is.
    pub fn parse(text: &str) -> Result<Option<Self>, DocumentError> {
        let text = Bytes::copy_from_slice(text.trim().as_bytes());
        json::check(&text)?;
        Ok(text.starts_with(b"[").then(|| Self { text, cursor: Cursor::default() }))
    }

    /// Its text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The next element.
    pub fn element(&mut self) -> Option<&[u8]> {
        self.cursor.element(&self.text)
    }

    /// Looks at each element, and refuses one that is too long.
    pub fn each(&self, mut look: impl FnMut(&[u8]) -> Result<(), ApiError>) -> Result<(), ApiError> {
        let mut cursor = Cursor::default();
        while let Some(element) = cursor.element(&self.text) {
            limited(element)?;
            look(element)?;
        }
        Ok(())
    }

    /// How many elements it has.
    pub fn count(&self) -> usize {
        let mut cursor = Cursor::default();
        std::iter::from_fn(|| cursor.element(&self.text)).count()
    }
}

/// Refuses an element that is too long.
pub fn limited(element: &[u8]) -> Result<(), ApiError> {
    if element.len() > ELEMENT_BYTES { Err(ApiError::TooLarge) } else { Ok(()) }
}

/// Memory for what is made of questions, the same that their bytes take.
#[derive(Debug, Clone)]
pub struct QuestionMemory {
    memory: Arc<Semaphore>,
    all: usize,
}

impl QuestionMemory {
    /// Of `all` bytes together.
    pub fn new(memory: Arc<Semaphore>, all: usize) -> Self {
        Self { memory, all }
    }

    /// Takes some: 413 if it is more than there is, 503 if others have it.
    pub fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let permits = u32::try_from(bytes).ok().filter(|_| bytes <= self.all).ok_or(ApiError::TooLarge)?;
        self.memory.clone().try_acquire_many_owned(permits).map_err(|_| ApiError::Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_where_it_stands() {
        let question = Bytes::from_static(br#" {"a":[1],"docs": [ {"id":"a"} , 2,"c" ],"z":0}"#);
        let mut list = List::of(&question, "docs", "no").unwrap().unwrap();
        assert_eq!(list.count(), 3);
        let elements: Vec<_> = std::iter::from_fn(|| list.element().map(<[u8]>::to_vec)).collect();
        assert_eq!(elements, [&br#"{"id":"a"}"#[..], b"2", br#""c""#]);
        assert!(List::of(&question, "none", "no").unwrap().is_none());
        assert!(matches!(List::of(&question, "z", "no"), Err(ApiError::BadRequest(_))));
        assert!(List::of(&Bytes::from_static(b"[]"), "docs", "no").is_err());
        assert!(List::of(&Bytes::from_static(br#"{"docs":[1}"#), "docs", "no").is_err());
        assert_eq!(List::parse("[]").unwrap().unwrap().count(), 0);
        assert!(List::parse("{}").unwrap().is_none());
    }

    #[test]
    fn what_is_made_of_a_question_has_a_limit() {
        let room = QuestionMemory::new(Arc::new(Semaphore::new(10)), 10);
        assert!(matches!(room.take(11), Err(ApiError::TooLarge)));
        let taken = room.take(6).unwrap();
        assert!(matches!(room.take(5), Err(ApiError::Busy)));
        drop(taken);
        assert!(room.take(5).is_ok());
    }
}

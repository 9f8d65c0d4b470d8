//! What handlers take from a request; each refuses with a problem document.

mod body;
mod caller;
mod fields;
mod if_match;
mod json;
mod page;
mod path_id;

pub(crate) use body::JsonBody;
pub(crate) use fields::Fields;
pub(crate) use if_match::IfMatch;
pub(crate) use json::parse;
pub(crate) use page::{PageParams, PageRequest, encode_cursor};
pub(crate) use path_id::PathId;

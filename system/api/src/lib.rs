//! Forecastle's HTTP interface.

//! Payment intents and their states.

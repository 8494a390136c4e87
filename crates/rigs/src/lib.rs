//! Real servers for tests: started on free ports in temporary folders, gone with the test that started them.

pub mod postgres;

pub use postgres::Postgres;

//! How the engine's types lie in columns. A value that is none of theirs is an error of its row.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::clock::Timestamp;
use crate::principal::{InstanceId, Principal};
use crate::store::{Generation, KeyId, Pseudonym, RunId};

/// Milliseconds since the Unix epoch.
impl ToSql for Timestamp {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_millis().into())
    }
}

impl FromSql for Timestamp {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Timestamp> {
        value.as_i64().map(Timestamp::from_millis)
    }
}

impl ToSql for Generation {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let count = i64::try_from(self.0)
            .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
        Ok(count.into())
    }
}

impl FromSql for Generation {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Generation> {
        let count = value.as_i64()?;
        u64::try_from(count)
            .map(Generation)
            .map_err(|_| FromSqlError::OutOfRange(count))
    }
}

impl ToSql for KeyId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.as_slice().into())
    }
}

impl FromSql for KeyId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<KeyId> {
        // What is too short to be a sealed text does not open, whatever its key is called.
        let mut id = [0; 4];
        for (to, byte) in id.iter_mut().zip(value.as_blob()?) {
            *to = *byte;
        }
        Ok(KeyId(id))
    }
}

/// Lower case with dashes.
impl ToSql for InstanceId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.to_string().into())
    }
}

impl FromSql for InstanceId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<InstanceId> {
        InstanceId::parse(value.as_str()?).map_err(FromSqlError::other)
    }
}

/// Lower case with dashes.
impl ToSql for RunId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.to_string().into())
    }
}

impl FromSql for RunId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<RunId> {
        value
            .as_str()?
            .parse()
            .map(RunId)
            .map_err(FromSqlError::other)
    }
}

/// As it displays.
impl ToSql for Principal {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.to_string().into())
    }
}

impl FromSql for Principal {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Principal> {
        Principal::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

/// As it displays.
impl FromSql for Pseudonym {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Pseudonym> {
        Pseudonym::parse(value.as_str()?).ok_or(FromSqlError::InvalidType)
    }
}

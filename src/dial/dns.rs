//! DNS questions and answers.

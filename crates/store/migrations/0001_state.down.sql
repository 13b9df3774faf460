DROP TABLE issued;
DROP TABLE outbox;
DROP TABLE audit;
DROP TABLE document;
DROP TABLE head;
